//! Every command and flag of `berth`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::show::Format;

/// Run jobs on a Berth cluster, look at them, and bring up a local cluster.
#[derive(Debug, Parser)]
#[command(
    name = "berth",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// How to reach the cluster and how to show the answer.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Masters, `host:port` with commas between [env: BERTH_ADDR] [default: 127.0.0.1:7600]
    #[arg(long, global = true, value_name = "ADDRESSES")]
    pub(crate) addr: Option<String>,
    /// Directory of a local cluster made by `berth up` [env: BERTH_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Directory of your certificate, from `berth join` [env: BERTH_TLS_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) tls_dir: Option<PathBuf>,
    /// How to write the answer
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(crate) output: Format,
    /// Leave out the line of headings
    #[arg(long, global = true, visible_alias = "noheader")]
    pub(crate) no_heading: bool,
    /// How long to try to reach a master that can answer
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    pub(crate) timeout: std::time::Duration,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit a job file
    #[command(visible_alias = "sbatch")]
    Submit(Submit),
    /// Submit a command, show its output, and exit with its code
    #[command(visible_alias = "srun")]
    Run(Run),
    /// Check a job file without submitting it
    Validate(Validate),
    /// List jobs
    #[command(visible_alias = "squeue")]
    Jobs(Jobs),
    /// Show one job
    #[command(visible_alias = "show")]
    Job {
        /// Id, the start of one, or a name
        id: String,
    },
    /// Show the output of a task
    Logs(Logs),
    /// Cancel jobs
    #[command(visible_alias = "scancel")]
    Cancel(Cancel),
    /// Say why a job waits, or sits where it sits
    Why {
        /// Id, the start of one, or a name
        id: String,
        /// Say why a running job sits where it sits
        #[arg(long)]
        placed: bool,
    },
    /// List nodes
    #[command(visible_alias = "sinfo")]
    Nodes,
    /// Show one node, fence it, or take it or its GPUs out of service
    Node(Node),
    /// Take nodes out of service
    Drain {
        /// Names, also as `n[1-3]`
        #[arg(required = true)]
        nodes: Vec<String>,
        /// Why, for people
        #[arg(long, default_value = "")]
        reason: String,
        /// Move running jobs away instead of letting them finish
        #[arg(long)]
        evict: bool,
    },
    /// Put nodes back into service
    Undrain {
        /// Names, also as `n[1-3]`
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Show what happened
    Events(Events),
    /// Show the cluster at a glance
    Status,
    /// List masters, or change which there are
    Masters(Masters),
    /// Save the cluster's state into a file
    Backup {
        /// The file to write
        file: PathBuf,
    },
    /// Make the data directory of a new cluster from a backup
    Restore(Restore),
    /// Ask what a change would do to waiting and completion times, without making it
    #[command(name = "what-if")]
    WhatIf(WhatIf),
    /// Make a cluster's certificate authority, so that masters and agents may be on several hosts
    Init(Init),
    /// Join tokens: let nodes, people and masters in
    Token {
        /// What to do.
        #[command(subcommand)]
        action: TokenAction,
    },
    /// Turn a join token into a certificate
    Join(Join),
    /// Certificates: show your own, list, revoke, renew
    Cert {
        /// What to do.
        #[command(subcommand)]
        action: Option<CertAction>,
    },
    /// Start a local cluster of real processes
    Up(Up),
    /// End a local cluster
    Down(Down),
    /// Run one master and one agent in the foreground, until Ctrl-C
    Dev(Dev),
    /// Measure a cluster
    Bench(Bench),
    /// Print the JSON Schema of job files
    Schema,
    /// Print the completion script of a shell
    Completion {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Explain exit codes
    #[command(name = "exit-codes", after_help = crate::commands::EXIT_CODES)]
    ExitCodes,
}

/// `berth submit`.
#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// Job file (.toml, .yaml or .yml), or `-` for standard input
    pub(crate) file: PathBuf,
    /// Change a key of the job file; lists are counted from 0, such as groups.0.workers=8
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Wait for the job's end and exit with its code
    #[arg(long)]
    pub(crate) wait: bool,
    /// Show the output of rank 0 as it comes; waits, too
    #[arg(long, visible_alias = "follow-logs")]
    pub(crate) logs: bool,
    /// Print only the job's id
    #[arg(long)]
    pub(crate) parsable: bool,
    /// Only check and show what would be submitted
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Idempotency key, a UUIDv7: the same key never makes a second job
    #[arg(long, value_name = "UUID")]
    pub(crate) key: Option<uuid::Uuid>,
}

/// `berth what-if`.
#[derive(Debug, Args)]
pub(crate) struct WhatIf {
    /// Add nodes like those of a pool: a pool's name, a class such as `a100x8`, or a node's name
    #[arg(long, value_name = "POOL=COUNT")]
    pub(crate) add_nodes: Vec<String>,
    /// Take nodes out of service: names, also as `n[1-3]`, a rack, or a pool
    #[arg(long, value_name = "NODES")]
    pub(crate) drain: Vec<String>,
    /// Plan with another policy
    #[arg(long, value_name = "NAME")]
    pub(crate) policy: Option<String>,
    /// Submit a job
    #[arg(long, value_name = "FILE")]
    pub(crate) submit: Vec<PathBuf>,
    /// Look at a backup instead of the running cluster
    #[arg(long, value_name = "FILE")]
    pub(crate) backup: Option<PathBuf>,
    /// Most jobs to list, those that change most first
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: u32,
}

/// `berth run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Name of the job [default: the program's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Number of workers
    #[arg(short = 'n', long, default_value_t = 1)]
    pub(crate) workers: u32,
    /// GPUs per worker
    #[arg(short, long, default_value = "0")]
    pub(crate) gpus: String,
    /// CPUs per worker
    #[arg(short, long, default_value = "1")]
    pub(crate) cpus: String,
    /// Change a key of the job
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// `berth validate`.
#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// Job file, or `-` for standard input
    pub(crate) file: PathBuf,
    /// Change a key of the job file
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// `berth jobs`.
#[derive(Debug, Args)]
pub(crate) struct Jobs {
    /// Only these states: words or Slurm's short forms, with commas between
    #[arg(short = 't', long, value_delimiter = ',', visible_alias = "states")]
    pub(crate) state: Vec<String>,
    /// Only this user's
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Only mine
    #[arg(long, conflicts_with = "user")]
    pub(crate) me: bool,
    /// Only this queue's
    #[arg(short, long)]
    pub(crate) queue: Option<String>,
    /// Only names that start so
    #[arg(short, long)]
    pub(crate) name: Option<String>,
    /// Finished ones too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    pub(crate) limit: u32,
    /// Continue where the page before ended
    #[arg(long, value_name = "TOKEN")]
    pub(crate) page_token: Option<u64>,
    /// Show the list again and again
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Pause between two lists
    #[arg(long, value_parser = duration, default_value = "2s")]
    pub(crate) interval: std::time::Duration,
}

/// `berth logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Id, the start of one, or a name
    pub(crate) id: String,
    /// Stay until the task has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Which task
    #[arg(short, long, default_value_t = 0)]
    pub(crate) rank: u32,
    /// Which attempt, counted from 1 [default: the newest]
    #[arg(short, long)]
    pub(crate) attempt: Option<u32>,
    /// Only standard error
    #[arg(long)]
    pub(crate) stderr: bool,
    /// Only standard output
    #[arg(long, conflicts_with = "stderr")]
    pub(crate) stdout: bool,
    /// Only the last bytes
    #[arg(long, value_name = "BYTES")]
    pub(crate) tail: Option<u64>,
}

/// `berth cancel`.
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// Ids
    #[arg(required = true)]
    pub(crate) ids: Vec<String>,
    /// Do not ask before cancelling a job whose id was not given in full
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// `berth node`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(crate) struct Node {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: Option<NodeAction>,
    /// Name, or the start of one
    pub(crate) name: Option<String>,
}

/// What to do with a node.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeAction {
    /// Say that lost nodes are certainly not running anything any more
    Fence {
        /// Names, also as `n[1-3]`
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Take nodes, or GPUs of a node, out of service until they are returned
    ///
    /// What runs there moves away at its next checkpoint.
    Quarantine {
        /// Names, also as `n[1-3]`
        #[arg(required = true)]
        nodes: Vec<String>,
        /// Only these GPUs: numbers or UUIDs
        #[arg(short, long, value_name = "GPU", value_delimiter = ',')]
        gpu: Vec<String>,
        /// Why, for whoever finds them out of service
        #[arg(short, long)]
        reason: String,
    },
    /// Test nodes or GPUs that are out of service now, and use them again if they pass
    Return {
        /// Names, also as `n[1-3]`
        #[arg(required = true)]
        nodes: Vec<String>,
        /// Only these GPUs: numbers or UUIDs
        #[arg(short, long, value_name = "GPU", value_delimiter = ',')]
        gpu: Vec<String>,
    },
}

/// `berth events`.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Stay, and show events as they happen
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only this job's
    #[arg(long)]
    pub(crate) job: Option<String>,
    /// From this sequence number on
    #[arg(long, default_value_t = 1)]
    pub(crate) since: u64,
    /// With --follow: nothing that happened before
    #[arg(long, requires = "follow")]
    pub(crate) new: bool,
}

/// `berth masters`.
#[derive(Debug, Args)]
pub(crate) struct Masters {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: Option<MastersAction>,
}

/// How to change which masters there are.
#[derive(Debug, Subcommand)]
pub(crate) enum MastersAction {
    /// List them
    List,
    /// Let a new master join: it learns first and votes when it has caught up
    Add {
        /// A new id, never used before
        id: u64,
        /// Where it listens, `host:port`
        #[arg(
            value_name = "ADDRESS",
            required_unless_present = "at",
            conflicts_with = "at"
        )]
        address: Option<String>,
        /// The same as a flag
        #[arg(id = "at", long = "address", value_name = "ADDRESS")]
        at: Option<String>,
    },
    /// Remove a master
    Remove {
        /// Its id
        id: u64,
    },
    /// Put a new master into the place of another
    Replace {
        /// The one that goes
        id: u64,
        /// Id of the new one [default: one more than the largest]
        #[arg(long, visible_alias = "id", value_name = "ID")]
        with: Option<u64>,
        /// Where the new one listens [default: the old one's address]
        #[arg(long)]
        address: Option<String>,
    },
}

/// `berth restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The backup
    pub(crate) file: PathBuf,
    /// Data directory to make; must not exist or be empty
    #[arg(long)]
    pub(crate) data_dir: PathBuf,
    /// Id of the master whose data directory this is
    #[arg(long)]
    pub(crate) id: u64,
    /// Where it will listen, if it is the only one
    #[arg(
        long,
        value_name = "HOST:PORT",
        required_unless_present = "master",
        conflicts_with = "master"
    )]
    pub(crate) address: Option<String>,
    /// Each master of the restored cluster; the same list for every one of them
    #[arg(long, value_name = "ID=HOST:PORT")]
    pub(crate) master: Vec<String>,
}

/// `berth init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Directory to make the authority in
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Name of the first admin, whose certificate is put into DIR/admin
    #[arg(long, default_value = "admin")]
    pub(crate) admin: String,
}

/// `berth token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Make a token; for admins
    Create(TokenCreate),
}

/// `berth token create`.
#[derive(Debug, Args)]
pub(crate) struct TokenCreate {
    /// admin, submitter, viewer, node or master
    #[arg(long)]
    pub(crate) role: berth_types::Role,
    /// Who joins: a person, a node's name or the start of names and `*`, a master's id
    #[arg(long)]
    pub(crate) name: String,
    /// How long it is good, a week at most
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, default_value = "1h")]
    pub(crate) valid_for: std::time::Duration,
    /// How many nodes may join with it
    #[arg(long, default_value_t = 1)]
    pub(crate) uses: u32,
}

/// `berth join`.
#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The token, or `-` to read it from standard input [env: BERTH_TOKEN]
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// The name to join under, if the token is for several
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) name: String,
}

/// `berth cert`.
#[derive(Debug, Subcommand)]
pub(crate) enum CertAction {
    /// Show your own certificate
    Show,
    /// List all certificates that have not expired; for admins
    List,
    /// End every certificate of somebody, and the connections that use them; for admins
    Revoke {
        /// Their role
        role: berth_types::Role,
        /// Their name
        name: String,
    },
    /// Fetch a new certificate of your own now; commands do it by themselves when it is time
    Renew,
    /// Make a certificate with the authority's key, without a master: when no admin is left
    Issue {
        /// Directory of ca.pem and ca-key.pem
        #[arg(long, value_name = "DIR")]
        authority: PathBuf,
        /// Its role
        #[arg(long)]
        role: berth_types::Role,
        /// Its name
        #[arg(long)]
        name: String,
    },
}

/// `berth up`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Up {
    /// Number of masters: 1, 3 or 5
    #[arg(long, default_value_t = 3)]
    pub(crate) masters: u32,
    /// Number of agents
    #[arg(long, default_value_t = 3)]
    pub(crate) agents: u32,
    /// GPUs that each agent declares; shown as simulated
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub(crate) gpus_per_agent: u32,
    /// Their model
    #[arg(long, default_value = "sim", value_name = "NAME")]
    pub(crate) gpu_model: String,
    /// Their memory
    #[arg(long, default_value = "16GiB", value_name = "MEMORY")]
    pub(crate) gpu_memory: String,
    /// CPUs that each agent offers [default: what the machine has]
    #[arg(long, value_name = "N")]
    pub(crate) cpus_per_agent: Option<String>,
    /// Memory that each agent offers [default: what the machine has]
    #[arg(long, value_name = "MEMORY")]
    pub(crate) memory_per_agent: Option<String>,
    /// Policy that plans
    #[arg(long, value_name = "NAME")]
    pub(crate) policy: Option<String>,
    /// Storage of the masters
    #[arg(long, value_name = "NAME")]
    pub(crate) storage: Option<String>,
    /// How long to wait until the cluster is ready
    #[arg(long, value_parser = duration, default_value = "30s")]
    pub(crate) ready_within: std::time::Duration,
}

/// `berth down`.
#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Leave the tasks and the processes that hold them running
    #[arg(long)]
    pub(crate) keep_tasks: bool,
    /// Remove the directory, too
    #[arg(long)]
    pub(crate) purge: bool,
}

/// `berth dev`.
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// GPUs to declare; shown as simulated
    #[arg(long, default_value_t = 2)]
    pub(crate) gpus: u32,
    /// Port of the master
    #[arg(long, default_value_t = 7600)]
    pub(crate) port: u16,
    /// Policy that plans
    #[arg(long, value_name = "NAME")]
    pub(crate) policy: Option<String>,
}

/// `berth bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) what: BenchWhat,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchWhat {
    /// Submission: rate, latency, and CPU of the masters. Without a cluster it brings one up for itself
    Submit(BenchSubmit),
    /// Trivial jobs end to end, and the time from submission to the first line of output
    Run(BenchRun),
}

/// `berth bench submit`.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchSubmit {
    /// Clients at once, each with one submission in flight
    #[arg(long, default_value_t = 256)]
    pub(crate) clients: usize,
    /// For how long, after a warm-up
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// HTTP/2 connections that the clients share
    #[arg(long, default_value_t = 4)]
    pub(crate) connections: usize,
    /// Through a follower instead of the leader
    #[arg(long, visible_alias = "through-follower")]
    pub(crate) follower: bool,
    /// On a cluster with nodes: take them out of service meanwhile, so that the jobs stay in the queue
    #[arg(long)]
    pub(crate) held: bool,
    /// Print each master's memory with 10,000 and with 100,000 pending jobs instead
    #[arg(long)]
    pub(crate) report_memory: bool,
    /// Number of masters of its own cluster
    #[arg(long, default_value_t = 3)]
    pub(crate) masters: u32,
    /// Storage of its own cluster's masters
    #[arg(long, value_name = "NAME")]
    pub(crate) storage: Option<String>,
}

/// `berth bench run`.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchRun {
    /// Number of trivial jobs
    #[arg(long, default_value_t = 1000)]
    pub(crate) jobs: usize,
    /// Submissions at once
    #[arg(long, default_value_t = 64)]
    pub(crate) clients: usize,
    /// Runs of `berth submit --logs` on the idle cluster
    #[arg(long, default_value_t = 40)]
    pub(crate) latency_runs: usize,
    /// Number of masters of its own cluster
    #[arg(long, default_value_t = 3)]
    pub(crate) masters: u32,
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; give a unit, such as 2s"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_node_is_shown_or_fenced() {
        let shown = Cli::try_parse_from(["berth", "node", "n1"]).unwrap();
        assert!(
            matches!(shown.command, Command::Node(Node { action: None, name: Some(n) }) if n == "n1")
        );
        let fenced = Cli::try_parse_from(["berth", "node", "fence", "n1"]).unwrap();
        assert!(matches!(
            fenced.command,
            Command::Node(Node {
                action: Some(_),
                name: None
            })
        ));
    }

    #[test]
    fn a_run_keeps_the_program_s_own_flags() {
        let cli = Cli::try_parse_from(["berth", "run", "-n", "2", "python3", "-c", "1", "--wait"])
            .unwrap();
        let Command::Run(run) = cli.command else {
            panic!("not a run")
        };
        assert_eq!((run.workers, run.command.len()), (2, 4));
    }

    #[test]
    fn slurm_s_names_are_aliases() {
        for (alias, name) in [("squeue", "jobs"), ("sinfo", "nodes")] {
            let command = Cli::command();
            let found = command.find_subcommand(alias).unwrap();
            assert_eq!(found.get_name(), name);
        }
    }
}
