//! Do proofs prove what they should, and nothing else? Other people's implementations of the same specifications make
//! proofs that ours checks, and check proofs that ours makes.

mod files;
mod notes;
mod paths;
mod rows;
mod tiles;
mod trees;
pub(crate) mod vectors;

const REGRESSIONS: &str = "proptest-regressions/proofs.txt";
