//! What the end-to-end tests share.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod binary;
pub mod faulty;
pub mod load;
pub mod process;
pub mod scripted_instance;
pub mod site;
