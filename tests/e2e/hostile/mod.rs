//! What attackers send, from either side. docs/SECURITY.md has the table: each attack, the answer, the setting, the test.

mod declared;
mod floods;
#[path = "../../support/frames.rs"]
pub mod frames;
mod instances;
mod paths;
mod recorder;
mod smuggling;
mod smuggling_h2;
#[path = "../../../fuzz/src/targets/strict.rs"]
#[allow(dead_code, reason = "shared with the fuzz targets")]
pub mod strict;
