//! Pointsman: a reverse proxy that routes by what instances *are*.
//!
//! ```text
//!  catalog ──CatalogUpdate──▶ publish ──Table──▶ forward ──▶ upstream ──▶ instance
//!  (Consul, file)               ▲  │               │  ▲
//!  rule files ────RuleSet───────┘  └ engine: snapshot ▸ route ▸ balance ▸ health
//!                                                  └──▶ observe (metrics, access log, events)
//! ```
//!
//! What always holds, in short (docs/ARCHITECTURE.md has it whole): the engine is pure; what must agree stands behind
//! one pointer that a request takes once; subsets are resolved when a table is published; a failing catalog removes
//! nobody; live state belongs to the instance and not to the snapshot; no request is sent twice unless that is safe.
//!
//! The modules, in reading order: [`engine`] decides. [`catalog`] and [`files`] (with [`tls_files`]) say what there is, [`publish`] makes
//! tables of it. [`server`] accepts, [`forward`] takes a request through its phases, [`upstream`] holds the connections
//! to the instances and checks them. [`observe`] counts and tells, [`admin`] shows it. [`config`] reads the settings,
//! [`serve`] composes the parts. [`debug_token`] says who may see
//! how one request was decided. [`dry_run`] is the engine over files, [`cli`] the commands.
#![cfg_attr(test, allow(clippy::unwrap_used))]
pub mod engine;

pub mod catalog;
pub mod debug_token;
pub mod files;
pub mod publish;
pub mod tls_files;

pub mod forward;
pub mod server;
pub mod upstream;

pub mod admin;
pub mod observe;

pub mod config;
pub mod serve;

pub mod cli;
pub mod dry_run;
