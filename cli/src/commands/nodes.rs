//! Nodes: list, show, take out of service, put back, fence.

use std::io::Write;

use berth_types::NodeView;
use serde_json::{Value, json};

use super::{Context, Outcome};
use crate::args::{Node, NodeAction};
use crate::client::Client;
use crate::failure::Failure;
use crate::show::{View, node, nodelist};

/// `berth nodes`.
pub(super) async fn list(context: &Context) -> Outcome {
    let nodes = context.client()?.nodes().await?;
    context.screen.print(&node::list(&context.screen, &nodes))?;
    Ok(0)
}

/// `berth node NAME` and `berth node fence NAME`.
pub(super) async fn one(context: &Context, args: Node) -> Outcome {
    let client = context.client()?;
    match (args.action, args.name) {
        (Some(NodeAction::Fence { nodes }), _) => {
            let calls = Change::Fence;
            change(context, &client, &nodes, &calls).await
        }
        (Some(NodeAction::Quarantine { nodes, gpu, reason }), _) => {
            let calls = Change::Quarantine {
                gpus: &gpu,
                reason: &reason,
            };
            change(context, &client, &nodes, &calls).await
        }
        (Some(NodeAction::Return { nodes, gpu }), _) => {
            let calls = Change::Return { gpus: &gpu };
            change(context, &client, &nodes, &calls).await
        }
        (None, Some(name)) => {
            let node = choose(&name, client.nodes().await?)?;
            context
                .screen
                .print(&node::detail(&context.screen, &node))?;
            Ok(0)
        }
        (None, None) => Err(Failure::usage("no node is named", "berth node NAME")),
    }
}

/// `berth drain NODE…`.
pub(super) async fn drain(
    context: &Context,
    nodes: &[String],
    reason: &str,
    evict: bool,
) -> Outcome {
    let client = context.client()?;
    let calls = Change::Drain { reason, evict };
    change(context, &client, nodes, &calls).await
}

/// `berth undrain NODE…`.
pub(super) async fn undrain(context: &Context, nodes: &[String]) -> Outcome {
    let client = context.client()?;
    change(context, &client, nodes, &Change::Undrain).await
}

enum Change<'a> {
    Drain { reason: &'a str, evict: bool },
    Undrain,
    Fence,
    Quarantine { gpus: &'a [String], reason: &'a str },
    Return { gpus: &'a [String] },
}

/// The names that these lists stand for.
pub(super) fn names_in(lists: &[String]) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for list in lists {
        names.extend(nodelist::unfold(list).ok_or_else(|| {
            Failure::usage(
                format!("`{list}` is no list of nodes"),
                "such as n1, n[1-3] or n[1-3,7],login",
            )
        })?);
    }
    Ok(names)
}

/// Makes a change to each of the nodes, whose names have to be given in full. Tries all; fails if one failed.
async fn change(
    context: &Context,
    client: &Client,
    lists: &[String],
    change: &Change<'_>,
) -> Outcome {
    let names = names_in(lists)?;
    let mut done: Vec<(String, String)> = Vec::new();
    let mut code = 0;
    for name in names {
        let result = match change {
            Change::Drain { reason, evict } => client.drain(&name, reason, *evict).await,
            Change::Undrain => client.undrain(&name).await,
            Change::Fence => client.fence(&name).await,
            Change::Quarantine { gpus, reason } => {
                for gpu in each(gpus) {
                    let result = client.quarantine(&name, gpu, reason).await;
                    note(context, &name, result, &mut done, &mut code)?;
                }
                continue;
            }
            Change::Return { gpus } => {
                for gpu in each(gpus) {
                    let result = client.put_back(&name, gpu).await;
                    note(context, &name, result, &mut done, &mut code)?;
                }
                continue;
            }
        };
        note(context, &name, result, &mut done, &mut code)?;
    }
    if !context.screen.for_people() {
        let values: Vec<Value> = done
            .iter()
            .map(|(name, text)| json!({ "name": name, "text": text }))
            .collect();
        context.screen.print(&View {
            text: String::new(),
            value: json!({ "nodes": values }),
            names: done.into_iter().map(|(name, _)| name).collect(),
        })?;
    }
    Ok(code)
}

/// The GPUs named, or none for the node as a whole.
fn each(gpus: &[String]) -> Vec<Option<String>> {
    match gpus {
        [] => vec![None],
        named => named.iter().cloned().map(Some).collect(),
    }
}

fn note(
    context: &Context,
    name: &str,
    result: Result<String, Failure>,
    done: &mut Vec<(String, String)>,
    code: &mut u8,
) -> Result<(), Failure> {
    match result {
        Ok(text) => {
            if context.screen.for_people() {
                writeln!(std::io::stdout().lock(), "{text}")?;
            }
            done.push((name.to_owned(), text));
        }
        Err(failure) => {
            *code = failure.exit_code();
            failure.print(&mut std::io::stderr().lock(), false);
        }
    }
    Ok(())
}

/// The node of this name, or the only one whose name starts so.
fn choose(name: &str, nodes: Vec<NodeView>) -> Result<NodeView, Failure> {
    let exact = nodes.iter().any(|n| n.spec.name == name);
    let mut found: Vec<NodeView> = nodes
        .into_iter()
        .filter(|n| n.spec.name == name || (!exact && n.spec.name.starts_with(name)))
        .collect();
    match found.len() {
        0 => Err(Failure::Named {
            what: format!("there is no node `{name}`"),
            hint: "`berth nodes` lists all of them".into(),
        }),
        1 => Ok(found.remove(0)),
        _ => {
            let names = nodelist::fold(found.iter().map(|n| n.spec.name.as_str()));
            Err(Failure::Named {
                what: format!("`{name}` means several nodes: {names}"),
                hint: "give the whole name".into(),
            })
        }
    }
}
