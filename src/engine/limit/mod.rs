//! Limits: how much may come, how much may be tried again, how much an instance carries.
//!
//! In reading order: [`rate`] is the token bucket, [`keyed`] many of them in bounded memory, [`places`] counts what goes
//! on at once, [`gradient`] finds that number by latency, [`load`] is what a service carries, [`budget`] what retries
//! may cost, [`sketch`] a pool's usual latency. `observe::limit_book` keeps all of it over reloads. Everything is an atomic word or a plain function; time is an
//! argument.

pub mod budget;
pub mod gradient;
pub mod keyed;
pub mod limiter;
pub mod load;
pub mod places;
pub mod rate;
pub mod sketch;

pub use budget::Budget;
pub use limiter::{Limiter, Over};
pub use load::Load;
pub use places::{Place, Places};
