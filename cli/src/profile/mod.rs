//! `ottla profile`: clusters by name, so that nobody has to remember their addresses.

mod apply;
mod file;

pub(crate) use apply::defaults;
#[cfg(test)]
pub(crate) use apply::unused_settings;

pub(crate) use file::text;

use crate::connection::duration;
use crate::output::{self, Format, table};
use clap::Subcommand;
use file::{Profile, ProfileFile, SETTINGS};
use ottla_client::HostPort;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Keep the addresses of clusters under names.
///
/// A profile gives --bootstrap, --timeout and --rack other defaults. Which one is used
/// says --profile, or OTTLA_PROFILE, or `ottla profile use`. A flag comes before a profile
/// that is named by --profile; that before OTTLA_BOOTSTRAP; and that before a profile that
/// is named otherwise. Profiles are in ~/.config/ottla/profiles.toml (or in
/// $XDG_CONFIG_HOME/ottla, or where OTTLA_PROFILES says), which may be written by hand.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Set(Set),
    Use(Use),
    List(List),
    Delete(Delete),
}

/// Make a profile, or change what is given.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla profile set prod --bootstrap ottla-1.example.net:7401,ottla-2.example.net:7401
  ottla profile set prod --timeout 10s
  ottla topic list --profile prod")]
struct Set {
    /// Letters, digits, `.`, `_` and `-`.
    name: String,

    /// Nodes to connect to first; any of the cluster will do.
    #[arg(long, value_name = "HOST:PORT[,…]", value_parser = addresses)]
    bootstrap: Option<String>,

    /// How long commands keep trying, such as 10s.
    #[arg(long, value_name = "DURATION", value_parser = time)]
    timeout: Option<String>,

    /// Where this machine is: `ottla consume` reads from replicas there.
    #[arg(long, value_name = "RACK")]
    rack: Option<String>,

    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Use a profile whenever none is named.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla profile use prod")]
struct Use {
    name: String,

    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// List all profiles.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla profile list
  ottla profile list --format json")]
struct List {
    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Delete a profile.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla profile delete prod")]
struct Delete {
    name: String,

    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn addresses(text: &str) -> Result<String, String> {
    HostPort::parse_list(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<String, String> {
    duration(text).map(|_| text.to_owned())
}

impl Args {
    pub(crate) fn format(&self) -> Format {
        match &self.command {
            Command::Set(args) => args.format,
            Command::Use(args) => args.format,
            Command::List(args) => args.format,
            Command::Delete(args) => args.format,
        }
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let format = args.format();
    let mut file = ProfileFile::open()?;
    match args.command {
        Command::List(_) => match format {
            Format::Text => output::line(&list_text(&file)?)?,
            Format::Json => output::json(&list_json(&file)?)?,
        },
        Command::Set(args) => {
            let given = [args.bootstrap, args.timeout, args.rack];
            let given = SETTINGS.iter().zip(given);
            let settings: Profile =
                given.filter_map(|(name, value)| Some(((*name).to_owned(), value?))).collect();
            anyhow::ensure!(!settings.is_empty(), "give --bootstrap, --timeout or --rack");
            file.set(&args.name, settings)?;
            changed(&file, &args.name, "set", format)?;
        }
        Command::Use(args) => {
            file.set_default(&args.name)?;
            changed(&file, &args.name, "used", format)?;
        }
        Command::Delete(args) => {
            file.remove(&args.name)?;
            changed(&file, &args.name, "deleted", format)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn changed(file: &ProfileFile, name: &str, what: &str, format: Format) -> anyhow::Result<()> {
    file.save()?;
    let path = file.path().display().to_string();
    match format {
        Format::Text => output::line(&format!("profile {name} is {what} ({path})"))?,
        Format::Json => output::json(&json!({ "profile": name, "done": what, "file": path }))?,
    }
    Ok(())
}

fn list_text(file: &ProfileFile) -> anyhow::Result<String> {
    let mut rows =
        vec![["PROFILE", "USED", "BOOTSTRAP", "TIMEOUT", "RACK"].map(str::to_owned).to_vec()];
    for name in file.names() {
        let mut profile = file.get(&name)?;
        let used = if file.default() == Some(&name) { "yes" } else { "" };
        let settings = SETTINGS.map(|setting| profile.remove(setting).unwrap_or_default());
        rows.push([vec![name, used.to_owned()], settings.to_vec()].concat());
    }
    Ok(table(&rows))
}

fn list_json(file: &ProfileFile) -> anyhow::Result<Value> {
    let mut profiles = Vec::new();
    for name in file.names() {
        let settings = file.get(&name)?;
        profiles.push(json!({
            "name": name, "used": file.default() == Some(&name), "settings": settings,
        }));
    }
    Ok(json!({ "file": file.path().display().to_string(), "profiles": profiles }))
}
