//! What needs no cluster: the schema, shell completion, the list of exit codes.

use std::io::Write;

use clap_complete::Shell;

use super::Outcome;
use crate::jobfile::schema;

/// What `berth exit-codes` prints; `docs/cli.md` has the same table.
pub(crate) const EXIT_CODES: &str = "\
0    success
1    the command failed
2    wrong usage, or a job file with faults
3    what was named does not exist
69   no master could be reached, or none led, for as long as --timeout says
70   Berth is at fault
77   the masters do not know you, or do not let you do this
130  interrupted with Ctrl-C

With `submit --wait`, `submit --logs` and `run`, once the job has ended:

N    the job's own exit code; 128+n if signal n ended it
124  the job ran longer than its time limit
125  the job ended without a code: its node was lost, or it could not start now
126  the job's program could not be started
143  the job was cancelled
";

/// `berth schema`.
pub(super) fn schema() -> Outcome {
    let mut out = std::io::stdout().lock();
    out.write_all(schema::text().as_bytes())?;
    Ok(0)
}

/// `berth completion SHELL`.
pub(super) fn completion(shell: Shell, command: &mut clap::Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "berth", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(0)
}

/// `berth exit-codes`.
pub(super) fn exit_codes() -> Outcome {
    std::io::stdout().lock().write_all(EXIT_CODES.as_bytes())?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn the_guide_has_every_exit_code_and_every_command() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");
        let guide = std::fs::read_to_string(path).unwrap();
        for line in EXIT_CODES.lines() {
            let Some((code, meaning)) = line.split_once("  ") else {
                continue;
            };
            let row = format!("| {} | {} |", code.trim(), meaning.trim());
            assert!(guide.contains(&row), "docs/cli.md lacks {row}");
        }
        for command in Cli::command().get_subcommands() {
            let name = format!("`berth {}", command.get_name());
            assert!(guide.contains(&name), "docs/cli.md lacks {name}`");
        }
    }

    #[test]
    fn completion_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "berth", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("undrain"), "{shell}");
        }
    }
}
