//! The file that profiles are kept in: TOML, written by hand or by `ottla profile`, which
//! keeps comments and order.
//!
//! ```toml
//! default = "prod"
//!
//! [profiles.prod]
//! bootstrap = "ottla-1.example.net:7401,ottla-2.example.net:7401"
//! timeout = "10s"
//! ```

use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use toml_edit::{DocumentMut, Item, Table, value};

/// Flags that a profile gives another default, by their long names.
pub(crate) const SETTINGS: [&str; 3] = ["bootstrap", "timeout", "rack"];

/// Settings of one profile, by the names of flags.
pub(crate) type Profile = BTreeMap<String, String>;

/// The file, and what it says.
pub(crate) struct ProfileFile {
    path: PathBuf,
    document: DocumentMut,
}

/// Where the file is: `OTTLA_PROFILES`, or where configuration of users is.
pub(crate) fn place(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("OTTLA_PROFILES").or_else(|| {
        let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
        Some(config.join("ottla").join("profiles.toml"))
    })
}

/// The file of this user as it is, if there is one.
pub(crate) fn text() -> std::io::Result<Option<String>> {
    let Some(path) = place(|name| std::env::var_os(name)) else { return Ok(None) };
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl ProfileFile {
    /// The file of this user; an empty one if there is none.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let path = place(|name| std::env::var_os(name)).context(
            "there is no place for profiles: set HOME, or OTTLA_PROFILES to the path of a file",
        )?;
        Self::load(&path)
    }

    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("reading {}", path.display()))?,
        };
        let document = text.parse().with_context(|| format!("{} is no TOML", path.display()))?;
        let file = Self { path: path.to_owned(), document };
        let unknown = file.document.iter().find(|(key, _)| !["default", "profiles"].contains(key));
        if let Some((key, _)) = unknown {
            bail!("{}: unknown `{key}`, expected `default` and `[profiles.NAME]`", path.display());
        }
        Ok(file)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The profile that is used when none is named.
    pub(crate) fn default(&self) -> Option<&str> {
        self.document.get("default").and_then(Item::as_str)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let profiles = self.document.get("profiles").and_then(Item::as_table_like);
        profiles
            .into_iter()
            .flat_map(|table| table.iter().map(|(name, _)| name.to_owned()))
            .collect()
    }

    /// What a profile says.
    pub(crate) fn get(&self, name: &str) -> anyhow::Result<Profile> {
        let found = self.document.get("profiles").and_then(|profiles| profiles.get(name));
        let Some(found) = found else {
            let known = match self.names() {
                none if none.is_empty() => "it has none".to_owned(),
                names => format!("it has {}", names.join(", ")),
            };
            bail!(
                "there is no profile {name:?} in {}: {known}; `ottla profile set {name} \
                 --bootstrap HOST:PORT` makes it",
                self.path.display()
            );
        };
        let whose = || format!("{}: profile {name}", self.path.display());
        let table = found.as_table_like().with_context(|| format!("{} is no table", whose()))?;
        let mut profile = Profile::new();
        for (key, item) in table.iter() {
            if !SETTINGS.contains(&key) {
                bail!("{} has an unknown {key:?}, expected {}", whose(), SETTINGS.join(", "));
            }
            let text = item.as_str().with_context(|| format!("{}: {key} is no string", whose()))?;
            profile.insert(key.to_owned(), text.to_owned());
        }
        Ok(profile)
    }

    /// Sets what is given, and leaves the rest of the profile as it is.
    pub(crate) fn set(&mut self, name: &str, settings: Profile) -> anyhow::Result<()> {
        check_name(name)?;
        if !self.names().iter().any(|known| known == name) && !settings.contains_key("bootstrap") {
            bail!("a new profile needs --bootstrap");
        }
        let profiles = self.document.entry("profiles").or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        let profiles = profiles.as_table_like_mut().context("`profiles` is no table")?;
        let profile = profiles.entry(name).or_insert_with(|| Item::Table(Table::new()));
        let profile = profile.as_table_like_mut().context("the profile is no table")?;
        for (key, text) in settings {
            profile.insert(&key, value(text));
        }
        Ok(())
    }

    /// Makes a profile the one that is used when none is named.
    pub(crate) fn set_default(&mut self, name: &str) -> anyhow::Result<()> {
        self.get(name)?;
        self.document.insert("default", value(name));
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &str) -> anyhow::Result<()> {
        self.get(name)?;
        if let Some(profiles) = self.document.get_mut("profiles").and_then(Item::as_table_like_mut)
        {
            profiles.remove(name);
        }
        if self.default() == Some(name) {
            self.document.remove("default");
        }
        Ok(())
    }

    /// Writes it, all or nothing.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let writing = || format!("writing {}", self.path.display());
        if let Some(dir) = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::create_dir_all(dir).with_context(writing)?;
        }
        let new = self.path.with_extension(format!("new-{}", std::process::id()));
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(self.document.to_string().as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        };
        write().with_context(writing)
    }
}

/// What can stand in a table's name and in a shell without quotes.
fn check_name(name: &str) -> anyhow::Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
    if name.is_empty() || !name.chars().all(is_plain) {
        bail!("{name:?} is no name for a profile: letters, digits, `.`, `_` and `-`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bootstrap(address: &str) -> Profile {
        Profile::from([("bootstrap".to_owned(), address.to_owned())])
    }

    #[test]
    fn the_file_is_where_configuration_is() {
        let at = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
            place(|name| Some(pairs.iter().find(|(k, _)| k == name)?.1.into()))
        };
        assert_eq!(at(&[("HOME", "/h")]), Some("/h/.config/ottla/profiles.toml".into()));
        let both = [("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")];
        assert_eq!(at(&both), Some("/x/ottla/profiles.toml".into()));
        assert_eq!(at(&[("HOME", "/h"), ("OTTLA_PROFILES", "/p")]), Some("/p".into()));
        assert_eq!(at(&[("HOME", "")]), None);
    }

    #[test]
    fn what_is_set_is_found_again_and_comments_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ottla").join("profiles.toml");
        let mut file = ProfileFile::load(&path).expect("none is there");
        assert!(file.set("prod", Profile::new()).is_err(), "a new one needs addresses");
        assert!(file.set("a b", bootstrap("a:1")).is_err(), "no name");
        file.set("prod", bootstrap("a:1")).expect("set");
        file.set_default("prod").expect("there");
        assert!(file.set_default("test").is_err());
        file.save().expect("saved");
        let text = fs::read_to_string(&path).expect("there");
        fs::write(&path, format!("# mine\n{text}")).expect("written");

        let mut file = ProfileFile::load(&path).expect("loaded");
        let timeout = Profile::from([("timeout".to_owned(), "5s".to_owned())]);
        file.set("prod", timeout).expect("set");
        file.set("test", bootstrap("b:1")).expect("set");
        file.save().expect("saved");
        let mut file = ProfileFile::load(&path).expect("loaded");
        let prod = file.get("prod").expect("there");
        assert_eq!((&*prod["bootstrap"], &*prod["timeout"]), ("a:1", "5s"));
        assert_eq!((file.default(), file.names().len()), (Some("prod"), 2));
        file.remove("prod").expect("there");
        assert_eq!((file.default(), file.names()), (None, vec!["test".to_owned()]));
        assert!(fs::read_to_string(&path).expect("there").starts_with("# mine\n"));
        assert_eq!(fs::read_dir(path.parent().expect("a directory")).expect("lists").count(), 1);
    }

    #[test]
    fn what_it_does_not_mean_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("profiles.toml");
        for (text, told) in [
            ("[profiles.p]\ncolour = \"red\"", "colour"),
            ("[profiles.p]\nbootstrap = 1", "bootstrap is no string"),
            ("profiles = 1", "no profile"),
            ("[profile.p]\nbootstrap = \"a:1\"", "unknown `profile`"),
            ("not TOML", "no TOML"),
        ] {
            fs::write(&path, text).expect("written");
            let outcome = ProfileFile::load(&path).and_then(|file| file.get("p"));
            let error = format!("{:#}", outcome.expect_err(text));
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
