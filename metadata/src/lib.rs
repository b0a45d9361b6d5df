//! Ottla's metadata: the facts that make up a cluster, the image they add up
//! to, and the controller that decides which facts come next.
//!
//! `records`, `image` and `controller` are pure: time, ids and seeds come in
//! with the event, and records go out.

pub mod controller;
pub mod image;
pub mod records;
pub mod raft;
