//! What xene's people write and its processes say to each other.
//!
//! Three families, which share names but no module, since each grows by its own rule:
//!
//! - the YAML objects of `xene/v1` ([`workflow`], [`trigger`], [`pipeline`], [`task`], [`step`], …, [`workflow_test`], [`notifier`]): a new
//!   field is a new feature of the language, an unknown field is an error;
//! - the records that the API shows ([`run`], [`access`], [`agent`], [`controller`], [`source`], [`event`], [`firing`],
//!   [`object`], [`plan`], [`suspension`], [`why`]): fields are only added, absent means absent;
//! - the messages between controller and agent ([`wire`]): tags are never reused, unknown ones survive.
//!
//! No I/O, no async, no clock and no random source: times and ids come in as arguments.

pub mod access;
pub mod agent;
pub mod connector;
pub mod controller;
pub mod diagnostic;
pub mod duration;
pub mod env;
pub mod event;
pub mod executor;
pub mod firing;
pub mod map;
pub mod meta;
pub mod notifier;
pub mod object;
pub mod param;
pub mod phase;
pub mod pipeline;
pub mod plan;
pub mod run;
pub mod source;
pub mod step;
pub mod suspension;
pub mod task;
pub mod trigger;
pub mod v1alpha1;
pub mod why;
pub mod wire;
pub mod workflow;
pub mod workflow_test;
