//! The heads of Consul's answers, one after another, beside what may be said of any watch that follows an index.

use std::num::NonZeroU64;

use http::{HeaderMap, HeaderName, HeaderValue};
use pointsman::catalog::consul::api::{self, Head};
use pointsman::catalog::consul::position::{Answered, Asked, Meaning, Position, Step};

/// Reads lines as the heads of answers to one watch, an empty line between two. `asked`, `body` and `due` say what else
/// there is to an answer; a line without a colon is a failure, or another address.
pub fn consul_index(input: &[u8]) {
    let mut watch = Watch::default();
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            if line.is_empty() {
                watch.answered(&headers);
                headers.clear();
            } else {
                watch.interrupted();
            }
            continue;
        };
        let name = HeaderName::from_bytes(line[..colon].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    watch.answered(&headers);
}

/// A watch, and what an onlooker knows of it: the answers that it has used, and nothing of how it keeps them.
#[derive(Default)]
struct Watch {
    position: Position,
    /// Index and body of the last answer that was judged.
    judged: Option<(u64, u64)>,
    /// The index that it may block on: that of the answer just before, if it was used.
    may_block_on: Option<u64>,
    /// Nothing has come between that answer and now.
    unbroken: bool,
    /// The answer just before was given up.
    gave_up: bool,
    /// Questions in a row that nothing held back: neither an index to block on nor a pause.
    at_once: u32,
}

impl Watch {
    fn interrupted(&mut self) {
        self.position.lost();
        assert_eq!(self.position.index(), None, "after a failure it is asked at once");
        (self.may_block_on, self.unbroken) = (None, false);
        // The back-off waits.
        self.at_once = 0;
    }

    fn answered(&mut self, headers: &HeaderMap) {
        let head = api::head(headers);
        assert!(head.index > 0, "an index of 0 would not block");
        assert!(head.indexed || head.index == 1, "no index is 1");
        let _ = api::is_json(headers);
        let text = |name: &str| headers.get(name).map_or(&[][..], HeaderValue::as_bytes);
        let asked = match text("asked") {
            b"full" => Asked::Full,
            b"quick" => Asked::Quick,
            _ if self.position.index().is_none() => Asked::Quick,
            _ => Asked::Blocked,
        };
        let answered = Answered {
            index: NonZeroU64::new(head.index).filter(|_| head.indexed),
            body: text("body").iter().fold(0, |sum, byte| sum * 31 % 1_009 + u64::from(*byte)),
            asked,
            fresh: head.leader_known && head.last_contact <= 5_000,
            reading_due: !text("due").is_empty(),
        };
        let known = self.judged.map_or(0, |(index, _)| index);
        let step = self.position.meet(answered, known);
        self.judge(answered, head, known, step);
    }

    fn judge(&mut self, answered: Answered, head: Head, known: u64, step: Step) {
        let used = step.meaning != Meaning::Fell;
        assert_eq!(used, head.index >= known || self.gave_up, "only a fall is given up, and never twice running");
        let now = self.position.index().map(NonZeroU64::get);
        assert_eq!(
            now,
            Some(head.index).filter(|_| used && head.indexed),
            "blocked on is the last index that was used"
        );
        if step.meaning == Meaning::Same {
            assert!(self.unbroken && !self.gave_up, "after a fall and after a break the answer is judged");
            assert_eq!(self.judged, Some((head.index, answered.body)), "what is passed over was judged before");
            assert!(answered.asked != Asked::Full && answered.fresh && !answered.reading_due, "{answered:?}");
        }
        self.at_once = if now.is_some() || step.slowly { 0 } else { self.at_once + 1 };
        assert!(self.at_once <= 1, "one question at once after a fall, then a pause or an index");
        let still = head.index == 1 && self.may_block_on.is_none_or(|index| index == 1);
        assert!(step.slowly || !used || !(still && answered.asked == Asked::Quick), "nothing to block on: slowly");
        assert!(!step.slowly || head.index == 1, "with an index there is no pause");
        if step.meaning == Meaning::News {
            self.judged = Some((head.index, answered.body));
        }
        (self.may_block_on, self.unbroken, self.gave_up) = (now, used, !used);
    }
}
