//! The dry runs as a person has them: the commands over files, and what they print, to the letter.
//!
//! With `UPDATE_EXPECTED=1` the expected files are written anew; read the difference before it is committed.

mod agreement;
mod commands;
