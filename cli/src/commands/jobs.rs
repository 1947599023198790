//! Jobs: list, show, cancel, why; and which job an id on the command line means.

use std::io::{BufRead, IsTerminal, Write};

use berth_types::{ErrorKind, JobFilter, JobId, JobView};
use serde_json::{Value, json};

use super::{Context, Outcome};
use crate::args::{Cancel, Jobs};
use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::show::job::{detail, state_from, state_word};
use crate::show::time::now_ms;
use crate::show::{View, job, other};

/// How many candidates are named when an id is ambiguous.
const CANDIDATES: u32 = 8;
/// Clears the terminal and goes to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// `berth jobs`.
pub(super) async fn list(context: &Context, args: &Jobs) -> Outcome {
    let client = context.client()?;
    let filter = filter(context, args)?;
    loop {
        let (jobs, next) = page(&client, &filter).await?;
        let view = job::list(&context.screen, &jobs, next, now_ms());
        if args.watch && context.screen.for_people() && std::io::stdout().is_terminal() {
            std::io::stdout().lock().write_all(CLEAR.as_bytes())?;
        }
        context.screen.print_item_or_page(&view, args.watch)?;
        if let Some(token) = next.filter(|_| context.screen.for_people() && !args.watch) {
            note(&format!(
                "more: add --page-token {token} or a larger --limit"
            ));
        }
        if !args.watch {
            return Ok(0);
        }
        tokio::time::sleep(args.interval).await;
    }
}

fn filter(context: &Context, args: &Jobs) -> Result<JobFilter, Failure> {
    let mut states = Vec::new();
    for text in &args.state {
        states.push(state_from(text).ok_or_else(|| {
            Failure::usage(
                format!("`{text}` is no state"),
                "pending, starting, running, stopping, fencing, completed, failed, cancelled or timed_out; \
                 or PD, CF, R, CG, FN, CD, F, CA, TO",
            )
        })?);
    }
    Ok(JobFilter {
        // Who asks for a final state wants finished jobs.
        finished: args.all || states.iter().any(|s| s.is_final()),
        states,
        user: args
            .user
            .clone()
            .or_else(|| args.me.then(|| context.user())),
        queue: args.queue.clone(),
        name_prefix: args.name.clone(),
        id_prefix: None,
        page_token: args.page_token,
        limit: args.limit,
    })
}

/// As many jobs as the filter's limit says, over several pages if need be.
async fn page(client: &Client, filter: &JobFilter) -> Result<(Vec<JobView>, Option<u64>), Failure> {
    let mut filter = filter.clone();
    let mut left = filter.limit;
    let mut all = Vec::new();
    loop {
        filter.limit = left.clamp(1, berth_types::api::MAX_PAGE);
        let (jobs, next) = client.list(&filter).await?;
        left = left.saturating_sub(u32::try_from(jobs.len()).unwrap_or(u32::MAX));
        all.extend(jobs);
        if left == 0 || next.is_none() {
            return Ok((all, next));
        }
        filter.page_token = next;
    }
}

/// `berth job ID`.
pub(super) async fn show(context: &Context, id: &str) -> Outcome {
    let client = context.client()?;
    let job = find(&client, id).await?;
    context
        .screen
        .print(&detail(&context.screen, &job, now_ms()))?;
    Ok(0)
}

/// `berth why ID`.
pub(super) async fn why(context: &Context, id: &str, placed: bool) -> Outcome {
    let client = context.client()?;
    let job = find(&client, id).await?;
    let view = if placed {
        other::placed(&job).ok_or_else(|| {
            Failure::local(
                format!(
                    "job {} is {} and holds no node",
                    job.id,
                    state_word(job.state)
                ),
                format!("ask without --placed, or look at `berth job {}`", job.id),
            )
        })?
    } else {
        other::why(&client.why(job.id).await?)
    };
    context.screen.print(&view)?;
    Ok(0)
}

/// `berth cancel ID…`. Tries all of them; fails if one failed.
pub(super) async fn cancel(context: &Context, args: &Cancel) -> Outcome {
    let client = context.client()?;
    let user = context.user();
    let mut done: Vec<(JobId, String)> = Vec::new();
    let mut code = 0;
    for id in &args.ids {
        match cancel_one(&client, id, &user, args.yes).await {
            Ok(result) => {
                if context.screen.for_people() {
                    writeln!(std::io::stdout().lock(), "{}", result.1)?;
                }
                done.push(result);
            }
            Err(failure) => {
                code = failure.exit_code();
                failure.print(&mut std::io::stderr().lock(), false);
            }
        }
    }
    if !context.screen.for_people() {
        let values: Vec<Value> = done
            .iter()
            .map(|(id, text)| json!({ "id": id.to_string(), "text": text }))
            .collect();
        context.screen.print(&View {
            text: String::new(),
            value: json!({ "cancelled": values }),
            names: done.iter().map(|(id, _)| id.to_string()).collect(),
        })?;
    }
    Ok(code)
}

async fn cancel_one(
    client: &Client,
    id: &str,
    user: &str,
    yes: bool,
) -> Result<(JobId, String), Failure> {
    let job = match id.parse::<u64>() {
        // The usual case needs no question first.
        Ok(number) => match client.cancel(JobId(number), user).await {
            Ok(text) => return Ok((JobId(number), text)),
            Err(error) if is_not_found(&error) => find(client, id).await?,
            Err(error) => return Err(error),
        },
        Err(_) => find(client, id).await?,
    };
    if !yes && !confirmed(&job)? {
        return Err(Failure::Named {
            what: format!(
                "there is no job `{id}`; the only one that starts so is {} ({})",
                job.id, job.spec.name
            ),
            hint: format!("say `berth cancel {}` if that is meant", job.id),
        });
    }
    let text = client.cancel(job.id, user).await?;
    Ok((job.id, text))
}

/// Asks at a terminal; elsewhere the answer is no.
fn confirmed(job: &JobView) -> Result<bool, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(false);
    }
    let mut err = std::io::stderr().lock();
    write!(err, "cancel job {} ({})? [y/N] ", job.id, job.spec.name)?;
    err.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn is_not_found(failure: &Failure) -> bool {
    matches!(failure, Failure::Api(error) if error.kind == ErrorKind::NotFound)
}

/// The job that an id, the start of one, or a name means.
pub(super) async fn find(client: &Client, text: &str) -> Result<JobView, Failure> {
    let number = text.parse::<u64>().ok();
    if let Some(number) = number {
        match client.job(JobId(number)).await {
            Err(error) if is_not_found(&error) => {}
            other => return other,
        }
    }
    let filter = JobFilter {
        id_prefix: number.map(|_| text.to_owned()),
        name_prefix: number.is_none().then(|| text.to_owned()),
        finished: true,
        limit: CANDIDATES,
        ..JobFilter::default()
    };
    let (jobs, more) = client.list(&filter).await?;
    choose(text, jobs, more.is_some())
}

/// The only candidate; or the only one whose name is exactly `text`.
fn choose(text: &str, mut jobs: Vec<JobView>, more: bool) -> Result<JobView, Failure> {
    let exact = jobs.iter().filter(|j| j.spec.name == text).count();
    if exact == 1 {
        jobs.retain(|j| j.spec.name == text);
    }
    match jobs.len() {
        0 => Err(Failure::Named {
            what: format!("there is no job `{text}`"),
            hint: "`berth jobs --all` lists all of them".into(),
        }),
        1 => Ok(jobs.remove(0)),
        _ => {
            let names: Vec<String> = jobs
                .iter()
                .map(|j| format!("{} ({})", j.id, j.spec.name))
                .collect();
            let and_more = if more { ", …" } else { "" };
            Err(Failure::Named {
                what: format!(
                    "`{text}` means several jobs: {}{and_more}",
                    names.join(", ")
                ),
                hint: "give the whole id".into(),
            })
        }
    }
}

/// A remark on standard error, so that the answer itself stays clean.
pub(super) fn note(text: &str) {
    // Nothing is left to do if standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The exit code that stands for a job's end.
pub(super) fn exit_code(job: &JobView) -> u8 {
    use berth_types::Outcome as End;
    match &job.outcome {
        Some(End::Completed) => 0,
        Some(End::Failed { code: -1 }) => exit::NOT_STARTED,
        // Codes have eight bits; one that would look like success does not.
        Some(End::Failed { code }) => match u8::try_from(code & 0xff) {
            Ok(0) | Err(_) => exit::FAILED,
            Ok(code) => code,
        },
        Some(End::Cancelled) => exit::CANCELLED,
        Some(End::TimedOut) => exit::TIMED_OUT,
        Some(End::NodeLost | End::Rejected) | None => exit::NO_CODE,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use berth_types::{JobSpec, JobState, Outcome as End};

    use super::*;

    fn job(id: u64, name: &str, outcome: Option<End>) -> JobView {
        JobView {
            id: JobId(id),
            spec: Arc::new(JobSpec {
                name: name.into(),
                ..JobSpec::default()
            }),
            state: JobState::Completed,
            reason: String::new(),
            reason_text: String::new(),
            submitted_ms: 0,
            started_ms: None,
            ended_ms: None,
            outcome,
            attempt: None,
            past: Vec::new(),
            restarts: 0,
            checkpoints: Vec::new(),
            progress: None,
            node_names: BTreeMap::new(),
        }
    }

    #[test]
    fn the_job_s_end_becomes_an_exit_code() {
        for (outcome, code) in [
            (Some(End::Completed), 0),
            (Some(End::Failed { code: 3 }), 3),
            (Some(End::Failed { code: 137 }), 137),
            (Some(End::Failed { code: -1 }), 126),
            (Some(End::Failed { code: 256 }), 1),
            (Some(End::Cancelled), 143),
            (Some(End::TimedOut), 124),
            (Some(End::NodeLost), 125),
            (Some(End::Rejected), 125),
            (None, 125),
        ] {
            assert_eq!(exit_code(&job(1, "a", outcome)), code, "{outcome:?}");
        }
    }

    #[test]
    fn a_unique_start_is_enough_and_an_ambiguous_one_names_the_candidates() {
        assert_eq!(
            choose("4", vec![job(42, "a", None)], false).unwrap().id,
            JobId(42)
        );
        let exact = choose(
            "digits",
            vec![job(7, "digits-2", None), job(8, "digits", None)],
            false,
        );
        assert_eq!(exact.unwrap().id, JobId(8));
        let several = choose("4", vec![job(42, "a", None), job(43, "b", None)], true).unwrap_err();
        assert_eq!(
            several.to_string(),
            "`4` means several jobs: 42 (a), 43 (b), …"
        );
        assert_eq!(several.exit_code(), exit::NOT_FOUND);
        let none = choose("9", Vec::new(), false).unwrap_err();
        assert!(none.to_string().contains("no job `9`"));
    }
}
