//! `ottla completion`: what makes a shell complete `ottla` commands.

use clap::Command;
use clap_complete::Shell;
use std::io::{self, Write};
use std::process::ExitCode;

/// Print a script with which a shell completes commands and flags.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  source <(ottla completion bash)                          # this shell only
  ottla completion bash > ~/.local/share/bash-completion/completions/ottla
  ottla completion zsh  > \"${fpath[1]}/_ottla\"
  ottla completion fish > ~/.config/fish/completions/ottla.fish")]
pub(crate) struct Args {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(args: &Args, mut command: Command) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "ottla", &mut script);
    let mut out = io::stdout().lock();
    out.write_all(&script)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
