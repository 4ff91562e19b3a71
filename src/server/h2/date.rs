//! The Date field that an answer gets when the instance gave none (RFC 9110, 6.6.1). Over HTTP/1 hyper adds it.

use std::cell::{Cell, RefCell};
use std::time::SystemTime;

use http::HeaderValue;

use crate::engine::time::Millis;
use crate::observe::timestamp::http_date;

/// The field's value, made once a second.
#[derive(Debug)]
pub struct Date {
    second: Cell<u64>,
    value: RefCell<HeaderValue>,
}

impl Default for Date {
    fn default() -> Self {
        Self { second: Cell::new(u64::MAX), value: RefCell::new(HeaderValue::from_static("")) }
    }
}

impl Date {
    /// The value at this moment.
    pub fn value(&self, now: Millis) -> HeaderValue {
        let second = now.0 / 1_000;
        if self.second.replace(second) != second
            && let Ok(value) = HeaderValue::try_from(http_date(SystemTime::now()))
        {
            self.value.replace(value);
        }
        self.value.borrow().clone()
    }
}
