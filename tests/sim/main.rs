//! The laws of ownership in random worlds, and what happens when one rule is left out.
//!
//! `XENE_WORLDS=1000000 cargo test --test sim` looks at a million; `XENE_SEED=N` tells the history of one.

mod mutants;
mod stories;
mod worlds;
