//! Groups, told as what members do, and random histories that keep the invariants.

mod pace;
mod property;
mod stories;
mod world;
