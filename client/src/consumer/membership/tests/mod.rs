//! A member alone, and members against the groups of a coordinator.

mod property;
mod stories;
mod world;
