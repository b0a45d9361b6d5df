//! Subscriptions by pattern.

use super::error::GroupError;
use super::topics::Topics;
use ottla_proto::TopicId;
use regex::{Regex, RegexBuilder};
use std::collections::{BTreeMap, BTreeSet};

/// Largest compiled pattern, in bytes: those of people are hundreds of times smaller,
/// and a shard may hold one for each member.
const MAX_COMPILED_BYTES: usize = 256 * 1024;

/// Compiled patterns, by their text. What matches is not kept: topics come and go.
#[derive(Clone, Debug, Default)]
pub(super) struct Patterns(BTreeMap<String, Regex>);

impl Patterns {
    /// Compiles a pattern once. True if it was not known.
    pub(super) fn learn(&mut self, pattern: &str) -> Result<bool, GroupError> {
        let is_new = !self.0.contains_key(pattern);
        if is_new {
            self.0.insert(pattern.to_owned(), compile(pattern)?);
        }
        Ok(is_new)
    }

    pub(super) fn forget(&mut self, pattern: &str) {
        self.0.remove(pattern);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets those that nobody has any more.
    pub(super) fn keep(&mut self, is_used: impl Fn(&str) -> bool) {
        self.0.retain(|pattern, _| is_used(pattern));
    }

    /// The topics of these names, and those that match one of these patterns.
    pub(super) fn matching<'a>(
        &self,
        names: &BTreeSet<String>,
        patterns: impl IntoIterator<Item = &'a String>,
        topics: &dyn Topics,
    ) -> Vec<TopicId> {
        let named = names.iter().filter_map(|name| topics.by_name(name));
        let matching = patterns.into_iter().flat_map(|pattern| self.topics(pattern, topics));
        named.chain(matching).collect()
    }

    /// Topics whose whole name matches. One that was never learnt matches nothing.
    fn topics(&self, pattern: &str, topics: &dyn Topics) -> Vec<TopicId> {
        let Some(regex) = self.0.get(pattern) else { return Vec::new() };
        let public = topics.public().into_iter();
        public.filter(|(name, _)| regex.is_match(name)).map(|(_, id)| id).collect()
    }
}

fn compile(pattern: &str) -> Result<Regex, GroupError> {
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(MAX_COMPILED_BYTES)
        .build()
        .map_err(|error| GroupError::InvalidPattern { why: error.to_string() })
}
