//! What each command does. Every command ends with an exit code or a [`Failure`].

mod backup;
mod certificates;
mod events;
mod follow;
mod jobs;
mod logs;
mod masters;
mod nodes;
mod processes;
mod shell;
mod submit;
mod whatif;

use std::cell::OnceCell;

use berth_tls::Dialler;
use clap::CommandFactory;

use crate::address::{Address, Sources};
use crate::args::{Cli, Command, Global};
use crate::bench;
use crate::client::Client;
use crate::failure::Failure;
use crate::show::{Screen, other};

pub(crate) use shell::EXIT_CODES;

/// The outcome of a command: its exit code.
pub(crate) type Outcome = Result<u8, Failure>;

/// What every command may need.
pub(crate) struct Context {
    /// Flags of every command.
    pub(crate) global: Global,
    /// What names the masters.
    pub(crate) sources: Sources,
    /// Where answers go.
    pub(crate) screen: Screen,
    /// What masters were dialled with, if with a certificate.
    pub(crate) dialler: OnceCell<Dialler>,
}

impl Context {
    /// Where the masters are.
    pub(crate) fn address(&self) -> Result<Address, Failure> {
        self.sources.resolve()
    }

    /// A client of the cluster that is meant.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let address = self.address()?;
        let client = Client::new(address.masters, self.global.timeout);
        match address.tls_dir {
            Some(dir) => {
                let dialler = Dialler::from_dir(&dir)?;
                Ok(client.with(self.dialler.get_or_init(|| dialler).clone()))
            }
            None => match client.elsewhere() {
                None => Ok(client),
                Some(other) => Err(Failure::usage(
                    format!("{other} is on another host, and you have no certificate"),
                    "get one with `berth join --token TOKEN`, then name its directory with --tls-dir or BERTH_TLS_DIR",
                )),
            },
        }
    }

    /// Who submits and cancels: whom the certificate names, or else this host's user.
    pub(crate) fn user(&self) -> String {
        let dir = self.address().ok().and_then(|address| address.tls_dir);
        let leaf = dir.and_then(|dir| Dialler::from_dir(&dir).ok()?.leaf());
        leaf.map_or_else(user_name, |leaf| leaf.identity.name)
    }
}

/// Runs a command.
pub(crate) async fn run(cli: Cli) -> Outcome {
    let global = cli.global;
    let context = Context {
        sources: Sources::of_process(&global),
        dialler: OnceCell::new(),
        screen: Screen::new(global.output, !global.no_heading),
        global,
    };
    let outcome = carry_out(&context, cli.command).await;
    certificates::keep_fresh(&context).await;
    outcome
}

async fn carry_out(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Submit(args) => submit::submit(context, args).await,
        Command::Run(args) => submit::run(context, args).await,
        Command::Validate(args) => submit::validate(context, &args),
        Command::Jobs(args) => jobs::list(context, &args).await,
        Command::Job { id } => jobs::show(context, &id).await,
        Command::Logs(args) => logs::show(context, &args).await,
        Command::Cancel(args) => jobs::cancel(context, &args).await,
        Command::Why { id, placed } => jobs::why(context, &id, placed).await,
        Command::Nodes => nodes::list(context).await,
        Command::Node(args) => nodes::one(context, args).await,
        Command::Drain {
            nodes,
            reason,
            evict,
        } => nodes::drain(context, &nodes, &reason, evict).await,
        Command::Undrain { nodes } => nodes::undrain(context, &nodes).await,
        Command::Events(args) => events::show(context, &args).await,
        Command::Status => {
            let status = context.client()?.status().await?;
            context
                .screen
                .print(&other::status(&context.screen, &status))?;
            Ok(0)
        }
        Command::Masters(args) => masters::run(context, args).await,
        Command::Backup { file } => backup::backup(context, &file).await,
        Command::Restore(args) => backup::restore(&args),
        Command::WhatIf(args) => whatif::ask(context, &args).await,
        Command::Init(args) => certificates::init(context, &args),
        Command::Token { action } => certificates::token(context, action).await,
        Command::Join(args) => certificates::join(context, args).await,
        Command::Cert { action } => certificates::cert(context, action).await,
        Command::Up(args) => processes::up(context, &args).await,
        Command::Down(args) => processes::down(context, &args),
        Command::Dev(args) => processes::dev(context, &args).await,
        Command::Bench(args) => bench::run(context, args).await,
        Command::Schema => shell::schema(),
        Command::Completion { shell } => shell::completion(shell, &mut Cli::command()),
        Command::ExitCodes => shell::exit_codes(),
    }
}

/// The user that submits and cancels.
pub(crate) fn user_name() -> String {
    let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let uid = rustix::process::getuid().as_raw();
    set("USER")
        .or_else(|| set("LOGNAME"))
        .or_else(|| name_of(uid, &std::fs::read_to_string("/etc/passwd").ok()?))
        .unwrap_or_else(|| format!("uid-{uid}"))
}

/// The name that a password file gives to a user id.
fn name_of(uid: u32, passwd: &str) -> Option<String> {
    let mut lines = passwd.lines().map(|l| l.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_environment_is_found_in_the_password_file() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\nodd\n";
        assert_eq!(name_of(1000, passwd).as_deref(), Some("ada"));
        assert_eq!(name_of(7, passwd), None);
    }
}
