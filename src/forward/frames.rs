//! Where one WebSocket frame ends and the next begins (RFC 6455, 5.2), so that a close frame can be put between them.

/// A frame's head is at most this long: two bytes, eight of length, four of mask.
const LONGEST_HEAD: usize = 14;
/// Going away (RFC 6455, 7.4.1).
const GOING_AWAY: [u8; 2] = 1001u16.to_be_bytes();

/// Follows one direction's frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    head: [u8; LONGEST_HEAD],
    /// Bytes of the head that have been seen.
    seen: usize,
    /// Bytes of the payload that are still to come.
    left: u64,
    /// A close frame has gone by.
    closed: bool,
}

impl Frames {
    /// Takes bytes that were passed on.
    pub fn advance(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len() as u64);
                self.left -= passed;
                bytes = &bytes[passed as usize..];
                continue;
            }
            self.head[self.seen] = *first;
            self.seen += 1;
            bytes = rest;
            if let Some(length) = self.length() {
                self.closed |= self.head[0] & 0x0F == 8;
                (self.left, self.seen) = (length, 0);
            }
        }
    }

    /// Whether the next byte begins a frame.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.left == 0 && self.seen == 0
    }

    /// Whether a close frame has gone by: nothing may follow it.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// How many of these bytes still belong to the frame under way.
    #[must_use]
    pub fn rest_of(mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && !self.at_boundary() {
            let step = self.left.clamp(1, (bytes.len() - taken) as u64) as usize;
            self.advance(&bytes[taken..taken + step]);
            taken += step;
        }
        taken
    }

    /// The payload's length, once the head is whole.
    fn length(&self) -> Option<u64> {
        if self.seen < 2 {
            return None;
        }
        let (extended, short) = match self.head[1] & 0x7F {
            126 => (2, None),
            127 => (8, None),
            short => (0, Some(u64::from(short))),
        };
        let masked = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        if self.seen < 2 + extended + masked {
            return None;
        }
        let long = || self.head[2..2 + extended].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        Some(short.unwrap_or_else(long))
    }
}

/// A close frame, going away. `mask`: towards the server, which takes only masked frames.
#[must_use]
pub fn going_away(mask: Option<[u8; 4]>) -> Vec<u8> {
    match mask {
        None => [&[0x88, 0x02][..], &GOING_AWAY].concat(),
        Some(mask) => {
            let payload = [GOING_AWAY[0] ^ mask[0], GOING_AWAY[1] ^ mask[1]];
            [&[0x88, 0x82][..], &mask, &payload].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(length: usize, masked: bool, opcode: u8) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match length {
            0..=125 => bytes.push(mask | length as u8),
            126..=65_535 => bytes.extend([mask | 126, (length >> 8) as u8, length as u8]),
            _ => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(std::iter::repeat_n(7, length + if masked { 4 } else { 0 }));
        bytes
    }

    #[test]
    fn a_close_frame_is_seen_and_made() {
        let mut frames = Frames::default();
        frames.advance(&frame(5, true, 1));
        assert!(!frames.closed());
        frames.advance(&going_away(Some([1, 2, 3, 4])));
        assert!(frames.closed() && frames.at_boundary());
        assert_eq!(going_away(None), [0x88, 2, 0x03, 0xE9]);
        assert_eq!(going_away(Some([1, 2, 3, 4])), [0x88, 0x82, 1, 2, 3, 4, 0x02, 0xEB]);
    }

    proptest! {
        #[test]
        fn boundaries_are_found_however_the_bytes_come(
            lengths in prop::collection::vec((prop_oneof![0usize..130, 65_530usize..65_540], any::<bool>()), 1..6),
            cuts in prop::collection::vec(1usize..5_000, 1..50),
        ) {
            let whole: Vec<Vec<u8>> = lengths.iter().map(|(length, masked)| frame(*length, *masked, 2)).collect();
            let ends: Vec<usize> = whole.iter().scan(0, |at, frame| { *at += frame.len(); Some(*at) }).collect();
            let bytes = whole.concat();
            let (mut frames, mut at, mut cuts) = (Frames::default(), 0, cuts.iter().cycle());
            while at < bytes.len() {
                let step = (*cuts.next().unwrap()).min(bytes.len() - at);
                frames.advance(&bytes[at..at + step]);
                at += step;
                prop_assert_eq!(frames.at_boundary(), ends.contains(&at));
                let end = if frames.at_boundary() { at } else { *ends.iter().find(|end| **end > at).unwrap() };
                prop_assert_eq!(frames.rest_of(&bytes[at..]), end - at);
            }
        }
    }
}
