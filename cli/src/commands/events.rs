//! What happened, and what happens.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_types::api::MAX_PAGE;
use berth_types::{Event, JobId, NodeId};

use super::jobs::find;
use super::{Context, Outcome};
use crate::args::Events;
use crate::client::Client;
use crate::failure::Failure;
use crate::show::other;

/// Pause before a stream that broke is opened again.
const REOPEN_AFTER: Duration = Duration::from_millis(200);

/// `berth events`.
pub(super) async fn show(context: &Context, args: &Events) -> Outcome {
    let client = context.client()?;
    let job = match &args.job {
        Some(id) => Some(find(&client, id).await?.id),
        None => None,
    };
    let mut printer = Printer {
        context,
        names: names(&client).await?,
    };
    if !args.follow {
        pages(&client, &mut printer, args.since.max(1), job).await?;
        return Ok(0);
    }
    let mut next = if args.new { 0 } else { args.since.max(1) };
    loop {
        let mut stream = client.watch(next, job).await?;
        // A stream that ends or breaks has lost its master; the next one goes on where it ended.
        while let Ok(Some(event)) = stream.message().await {
            next = event.seq + 1;
            printer.print(&client, &Event::try_from(event)?).await?;
        }
        tokio::time::sleep(REOPEN_AFTER).await;
    }
}

async fn pages(
    client: &Client,
    printer: &mut Printer<'_>,
    since: u64,
    job: Option<JobId>,
) -> Result<(), Failure> {
    let mut next = since;
    loop {
        let (events, after) = client.events(next, MAX_PAGE).await?;
        if events.is_empty() {
            return Ok(());
        }
        for event in events.iter().filter(|e| job.is_none() || e.job == job) {
            printer.print(client, event).await?;
        }
        next = after;
    }
}

struct Printer<'a> {
    context: &'a Context,
    names: BTreeMap<NodeId, String>,
}

impl Printer<'_> {
    async fn print(&mut self, client: &Client, event: &Event) -> Result<(), Failure> {
        if event.node.is_some_and(|n| !self.names.contains_key(&n)) {
            // A node that registered meanwhile.
            self.names = names(client).await?;
        }
        self.context
            .screen
            .print_item(&other::event(event, &self.names))
    }
}

async fn names(client: &Client) -> Result<BTreeMap<NodeId, String>, Failure> {
    let nodes = client.nodes().await?;
    Ok(nodes
        .into_iter()
        .map(|n| (n.id, n.spec.name.clone()))
        .collect())
}
