//! Which masters there are, and how that changes.

use std::time::{Duration, Instant};

use serde_json::json;

use super::jobs::note;
use super::{Context, Outcome};
use crate::args::{Masters, MastersAction};
use crate::client::Client;
use crate::failure::Failure;
use crate::local::cluster::{forget_master, start_joining_master};
use crate::show::other;

/// How long the old master may stay a member while the new one votes.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(1);
/// How long a new master of a local cluster may take to catch up.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);

/// `berth masters …`.
pub(super) async fn run(context: &Context, args: Masters) -> Outcome {
    let client = context.client()?;
    match args.action {
        None | Some(MastersAction::List) => {
            let masters = client.masters().await?;
            context
                .screen
                .print(&other::masters(&context.screen, &masters))?;
        }
        Some(MastersAction::Add { id, address, at }) => {
            let address = address.or(at).unwrap_or_default();
            let text = client.add_master(id, &address, None).await?;
            context.screen.say(
                &text,
                json!({ "id": id.to_string(), "address": address, "text": text }),
                &id.to_string(),
            )?;
        }
        Some(MastersAction::Remove { id }) => remove(context, &client, id).await?,
        Some(MastersAction::Replace { id, with, address }) => {
            replace(context, &client, id, with, address).await?;
        }
    }
    Ok(0)
}

async fn remove(context: &Context, client: &Client, id: u64) -> Result<(), Failure> {
    let text = client.remove_master(id).await?;
    if let Some(dir) = local_dir_with(context, id)? {
        forget_master(&dir, id)?;
    }
    context.screen.say(
        &text,
        json!({ "id": id.to_string(), "text": text }),
        &id.to_string(),
    )
}

/// Puts a new master into the place of another. In a local cluster its process is started, and the old one's ended.
async fn replace(
    context: &Context,
    client: &Client,
    id: u64,
    with: Option<u64>,
    address: Option<String>,
) -> Result<(), Failure> {
    let masters = client.masters().await?;
    let Some(old) = masters.iter().find(|m| m.id.0 == id) else {
        return Err(Failure::Named {
            what: format!("there is no master {id}"),
            hint: "`berth masters` lists all of them".into(),
        });
    };
    let largest = masters.iter().map(|m| m.id.0).max().unwrap_or(id);
    let new = with.unwrap_or(largest + 1);
    let local = local_dir_with(context, id)?;
    let address = match (address, &local) {
        (Some(address), _) => address,
        (None, Some(dir)) => start_joining_master(dir, new)?.address,
        (None, None) => old.info.address.clone(),
    };
    let text = client.add_master(new, &address, Some(id)).await?;
    if let Some(dir) = &local {
        until_replaced(client, id, new).await?;
        forget_master(dir, id)?;
    } else {
        note(&format!(
            "start the new master at {address} with `id = {new}` and `join = true` in its configuration"
        ));
    }
    let value =
        json!({ "old": id.to_string(), "id": new.to_string(), "address": address, "text": text });
    context.screen.say(&text, value, &new.to_string())
}

/// The local cluster's directory, if the master is one of its processes.
fn local_dir_with(context: &Context, id: u64) -> Result<Option<std::path::PathBuf>, Failure> {
    let Some(dir) = context.address()?.dir else {
        return Ok(None);
    };
    let cluster = crate::local::layout::Cluster::load(&dir)?;
    Ok(cluster.masters.iter().any(|m| m.id == id).then_some(dir))
}

/// Waits until the new one votes and the old one is gone.
async fn until_replaced(client: &Client, old: u64, new: u64) -> Result<(), Failure> {
    let deadline = Instant::now() + CATCH_UP_WITHIN;
    let mut votes_since = None;
    loop {
        let masters = client.masters().await?;
        let votes = masters.iter().any(|m| m.id.0 == new && m.voter);
        if votes && !masters.iter().any(|m| m.id.0 == old) {
            return Ok(());
        }
        // The leader removes the old one by itself, unless it was the old one and handed over before that.
        let since = *votes_since.get_or_insert_with(Instant::now);
        if !votes {
            votes_since = None;
        } else if since.elapsed() > HAND_OVER_WITHIN {
            client.remove_master(old).await?;
            votes_since = None;
        }
        if Instant::now() > deadline {
            return Err(Failure::local(
                format!(
                    "master {new} has not caught up after {} s",
                    CATCH_UP_WITHIN.as_secs()
                ),
                "look at `berth masters` and at its log; it goes on by itself",
            ));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
