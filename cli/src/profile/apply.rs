//! A profile's settings become the defaults of the flags of the same names, before the
//! command line is parsed.

use super::file::{Profile, ProfileFile, place};
use clap::Command;
use clap::builder::Resettable;
use std::ffi::{OsStr, OsString};

/// Commands that talk to no cluster that a profile could name.
const WITHOUT: [&str; 6] = ["profile", "completion", "dev", "node", "log", "help"];

/// Who named the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// The command line: it comes before variables of the environment.
    ByFlag,
    /// The environment, or the file.
    Otherwise,
}

/// The command line with the defaults of the profile that is to be used, if one is.
///
/// # Errors
/// There is no such profile, or its file cannot be read.
pub(crate) fn defaults(command: Command, args: &[OsString]) -> anyhow::Result<Command> {
    let subcommand = args.iter().skip(1).find(|arg| !is_flag(arg));
    if subcommand.is_none_or(|name| WITHOUT.iter().any(|without| *name == *without)) {
        return Ok(command);
    }
    let by_flag = flag(args);
    let by_env = std::env::var("OTTLA_PROFILE").ok().filter(|name| !name.is_empty());
    let named = by_flag.clone().or(by_env);
    if named.is_none() && place(|name| std::env::var_os(name)).is_none() {
        return Ok(command);
    }
    let file = ProfileFile::open()?;
    let Some(name) = named.or_else(|| file.default().map(str::to_owned)) else {
        return Ok(command);
    };
    let who = if by_flag.is_some() { Named::ByFlag } else { Named::Otherwise };
    Ok(with_defaults(command, &file.get(&name)?, who))
}

fn is_flag(arg: &OsStr) -> bool {
    arg.to_string_lossy().starts_with('-')
}

/// The value of `--profile`.
fn flag(args: &[OsString]) -> Option<String> {
    let mut args = args.iter().map(|arg| arg.to_string_lossy()).take_while(|arg| arg != "--");
    while let Some(arg) = args.next() {
        if arg == "--profile" {
            return args.next().map(Into::into);
        }
        if let Some(name) = arg.strip_prefix("--profile=") {
            return Some(name.to_owned());
        }
    }
    None
}

fn with_defaults(mut command: Command, profile: &Profile, named: Named) -> Command {
    for (setting, text) in profile {
        if command.get_arguments().any(|arg| arg.get_id() == setting.as_str()) {
            command = command.mut_arg(setting, |arg| {
                let arg = arg.default_value(text.clone());
                // Who names a cluster on the command line means that one.
                if named == Named::ByFlag { arg.env(Resettable::Reset) } else { arg }
            });
        }
    }
    let names: Vec<String> =
        command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names.iter().filter(|name| !WITHOUT.contains(&name.as_str())) {
        command = command.mut_subcommand(name, |sub| with_defaults(sub, profile, named));
    }
    command
}

/// A flag of some command is meant by each setting.
#[cfg(test)]
pub(crate) fn unused_settings(command: &Command) -> Vec<&'static str> {
    fn has(command: &Command, setting: &str) -> bool {
        command.get_arguments().any(|arg| arg.get_id() == setting)
            || command.get_subcommands().any(|sub| has(sub, setting))
    }
    super::SETTINGS.into_iter().filter(|setting| !has(command, setting)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgMatches};

    #[test]
    fn the_flag_is_found_before_the_command_line_is_parsed() {
        let of = |args: &[&str]| flag(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(of(&["ottla", "topic", "list", "--profile", "p"]), Some("p".to_owned()));
        assert_eq!(of(&["ottla", "--profile=p", "topic"]), Some("p".to_owned()));
        assert_eq!(of(&["ottla", "produce", "--", "--profile", "p"]), None);
        assert_eq!(of(&["ottla", "topic", "--profile"]), None);
    }

    /// Flag before profile by flag, before environment, before any other profile.
    #[test]
    fn whoever_is_nearer_to_the_command_line_comes_first() {
        let profile = Profile::from([("bootstrap".to_owned(), "profile:1".to_owned())]);
        // `PATH` is set wherever tests run, and not to any of the values here.
        let command = || {
            let bootstrap =
                Arg::new("bootstrap").long("bootstrap").env("PATH").default_value("d:1");
            Command::new("ottla").subcommand(Command::new("sub").arg(bootstrap))
        };
        let value = |matches: &ArgMatches| {
            let (_, matches) = matches.subcommand().expect("one");
            matches.get_one::<String>("bootstrap").expect("a default").clone()
        };
        let parse = |named, args: &[&str]| {
            let args = [&["ottla", "sub"], args].concat();
            value(&with_defaults(command(), &profile, named).get_matches_from(args))
        };
        assert_eq!(parse(Named::ByFlag, &[]), "profile:1");
        assert_eq!(parse(Named::Otherwise, &[]), std::env::var("PATH").expect("set"));
        assert_eq!(parse(Named::ByFlag, &["--bootstrap", "flag:1"]), "flag:1");
        let without_env = command().mut_subcommand("sub", |sub| {
            sub.mut_arg("bootstrap", |arg| arg.env(Resettable::Reset))
        });
        let matches = with_defaults(without_env, &profile, Named::Otherwise);
        assert_eq!(value(&matches.get_matches_from(["ottla", "sub"])), "profile:1");
    }
}
