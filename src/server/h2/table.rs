//! What a client's table of fields holds of our memory. The library keeps the value of a pseudo-field as a slice of the
//! buffer that it was read into, so that an entry of 40 bytes can hold 8 KiB (16 behind a long frame): a table of 4 KiB
//! a megabyte, for as long as the connection lives. It says nothing of it, so header blocks are read beside it
//! (RFC 7541, 6), without decoding a string.

/// The library's buffer.
const BUFFER: u64 = 8 * 1024;
/// The table's size, which is the protocol's default.
const TABLE: u64 = 4_096;
/// What an entry counts besides its strings.
const ENTRY: u64 = 32;
/// Entries are dropped in their order; how much of the table's size is forgotten at a time.
const PART: u64 = TABLE / 8;
/// Fields that every table begins with.
const STATIC: u64 = 61;
/// `:authority`, `:path` (twice) and `:scheme` (twice) among them. A method is copied.
const KEPT: [u64; 5] = [1, 4, 5, 6, 7];
/// More than any length in a frame.
const MOST: u64 = 1 << 32;

/// What the next byte of a header block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Field,
    /// More of the integer that a field begins with.
    Indexed,
    Index,
    Size,
    NameLength,
    NameLengthGoesOn,
    NameBegins,
    Name,
    ValueLength,
    ValueLengthGoesOn,
    Value,
}

/// One client's table, as far as it holds memory.
#[derive(Debug)]
pub struct Table {
    next: Next,
    integer: u64,
    shift: u32,
    /// Bytes of a string that are still to come.
    left: u64,
    /// The entry that is being read: whether it goes into the table, whether it holds what it was read into, whether the
    /// string is compressed, and its size (the least that it may have).
    enters: bool,
    kept: bool,
    compressed: bool,
    size: u64,
    /// Of the frame that is being read: bytes before the block, and of the block.
    before: usize,
    block: usize,
    padded: bool,
    /// Which of the last 128 entries hold what they were read into; the newest is the lowest bit.
    names: u128,
    /// The size of all that has ever entered, in parts, and of what the newest part has.
    entered: u64,
    /// Buffers that entries hold, by the part in which they entered, the newest at `newest`.
    buffers: [u16; 9],
    newest: usize,
    /// The buffer that the last entry which holds one was read into.
    last: u64,
    /// The longest frame, but for which a buffer has [`BUFFER`].
    longest: u64,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            next: Next::Field,
            integer: 0,
            shift: 0,
            left: 0,
            enters: false,
            kept: false,
            compressed: false,
            size: 0,
            before: 0,
            block: 0,
            padded: false,
            names: 0,
            entered: 0,
            buffers: [0; 9],
            newest: 0,
            last: u64::MAX,
            longest: BUFFER,
        }
    }
}

impl Table {
    /// Bytes that are held beyond the buffer that every connection has, at most about twice too many or too few.
    #[must_use]
    pub fn held(&self) -> u64 {
        let buffers: u64 = self.buffers.iter().map(|count| u64::from(*count)).sum();
        buffers.saturating_sub(1) * self.longest
    }

    /// A frame begins, of whatever kind.
    pub fn frame(&mut self, length: usize) {
        self.longest = self.longest.max(length as u64);
    }

    /// A frame with a part of a header block begins.
    pub fn begin(&mut self, length: usize, padded: bool, priority: bool) {
        self.padded = padded;
        self.before = usize::from(padded) + if priority { 5 } else { 0 };
        self.block = length.saturating_sub(self.before);
    }

    /// A piece of the frame that has begun. `position`: how many bytes the connection has brought.
    pub fn read(&mut self, mut bytes: &[u8], position: u64) {
        if self.padded && !bytes.is_empty() {
            self.padded = false;
            self.block = self.block.saturating_sub(usize::from(bytes[0]));
        }
        let passed = self.before.min(bytes.len());
        self.before -= passed;
        bytes = &bytes[passed..];
        let block = self.block.min(bytes.len());
        self.block -= block;
        bytes = &bytes[..block];
        while let Some((&byte, rest)) = bytes.split_first() {
            if matches!(self.next, Next::Name | Next::Value) {
                let passed = self.left.min(bytes.len() as u64);
                self.left -= passed;
                bytes = &bytes[passed as usize..];
                self.string_goes_on(position);
            } else {
                bytes = if self.next == Next::NameBegins { bytes } else { rest };
                self.byte(byte, position);
            }
        }
    }

    fn byte(&mut self, byte: u8, position: u64) {
        match self.next {
            Next::Field => {
                (self.enters, self.kept, self.size) = (byte & 0xc0 == 0x40, false, ENTRY);
                let (then, prefix) = match byte {
                    0x80.. => (Next::Indexed, 7),
                    0x40..0x80 => (Next::Index, 6),
                    0x20..0x40 => (Next::Size, 5),
                    _ => (Next::Index, 4),
                };
                self.begin_integer(byte, prefix, then, position);
            }
            Next::NameLength | Next::ValueLength => {
                self.compressed = byte & 0x80 != 0;
                let is_name = self.next == Next::NameLength;
                let then = if is_name { Next::NameLengthGoesOn } else { Next::ValueLengthGoesOn };
                self.begin_integer(byte, 7, then, position);
            }
            Next::NameBegins => {
                // A colon, or its code.
                self.kept = if self.compressed { byte >> 1 == 0x5c } else { byte == b':' };
                self.next = Next::Name;
            }
            Next::Indexed | Next::Index | Next::Size | Next::NameLengthGoesOn | Next::ValueLengthGoesOn => {
                // The library refuses what is longer, and the connection with it.
                self.integer = (self.integer + (u64::from(byte & 0x7f) << self.shift.min(32))).min(MOST);
                self.shift += 7;
                if byte & 0x80 == 0 {
                    self.integer_ends(position);
                }
            }
            Next::Name | Next::Value => {}
        }
    }

    fn begin_integer(&mut self, byte: u8, prefix: u32, then: Next, position: u64) {
        let most = (1u8 << prefix) - 1;
        (self.next, self.integer, self.shift) = (then, u64::from(byte & most), 0);
        if byte & most != most {
            self.integer_ends(position);
        }
    }

    fn integer_ends(&mut self, position: u64) {
        let integer = self.integer;
        self.next = match self.next {
            Next::Size => {
                if integer == 0 {
                    self.buffers = [0; 9];
                }
                Next::Field
            }
            Next::Index if integer == 0 => Next::NameLength,
            Next::Index => {
                self.kept = self.is_kept(integer);
                // No shorter name has a place in the table of every connection (`age`), or is kept (`:path`).
                self.size += if self.kept { 5 } else { 1 };
                Next::ValueLength
            }
            Next::NameLengthGoesOn | Next::ValueLengthGoesOn => {
                let is_name = self.next == Next::NameLengthGoesOn;
                self.left = integer;
                // No code is longer than 30 bits.
                self.size += if self.compressed { integer * 8 / 30 } else { integer };
                self.next = match (is_name, integer) {
                    (true, 1..) => Next::NameBegins,
                    (true, 0) => Next::Name,
                    (false, _) => Next::Value,
                };
                if integer == 0 {
                    self.string_goes_on(position);
                }
                return;
            }
            _ => Next::Field,
        };
    }

    fn string_goes_on(&mut self, position: u64) {
        if self.left > 0 {
            return;
        }
        if self.next == Next::Name {
            self.next = Next::ValueLength;
            return;
        }
        self.next = Next::Field;
        if self.enters {
            self.enter(position);
        }
    }

    fn is_kept(&self, index: u64) -> bool {
        match index.checked_sub(STATIC + 1) {
            None => KEPT.contains(&index),
            Some(back) => back < 128 && self.names >> back & 1 == 1,
        }
    }

    fn enter(&mut self, position: u64) {
        self.names = self.names << 1 | u128::from(self.kept);
        let part = self.entered / PART;
        self.entered += self.size.min(TABLE);
        for _ in part..self.entered / PART {
            self.newest = (self.newest + 1) % self.buffers.len();
            self.buffers[self.newest] = 0;
        }
        let buffer = position / BUFFER;
        if self.kept && buffer != self.last {
            self.last = buffer;
            self.buffers[self.newest] = self.buffers[self.newest].saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A literal whose name is at `index`, or is said. Short strings, not compressed.
    fn literal(begins: u8, index: u8, name: &str, value: &str) -> Vec<u8> {
        let mut field = vec![begins | index];
        let strings = if index == 0 { vec![name, value] } else { vec![value] };
        for string in strings {
            field.push(string.len() as u8);
            field.extend(string.as_bytes());
        }
        field
    }

    const ENTERS: u8 = 0x40;
    const STAYS_OUT: u8 = 0x00;

    /// Blocks that come each behind so much of something else.
    fn after(blocks: &[Vec<u8>], apart: u64) -> Table {
        let mut table = Table::default();
        let mut position = 0;
        for block in blocks {
            position += apart;
            table.begin(block.len(), false, false);
            table.read(block, position);
        }
        table
    }

    #[test]
    fn each_entry_that_is_kept_holds_the_buffer_that_it_came_in() {
        let asked = |at: usize| literal(ENTERS, 1, "", &format!("host-{at:03}"));
        let blocks: Vec<_> = (0..50).map(asked).collect();
        assert_eq!(after(&blocks, BUFFER).held(), 49 * BUFFER);
        assert_eq!(after(&blocks, BUFFER / 10).held(), 4 * BUFFER, "ten in a buffer");
        // 45 bytes each, of which the table takes 91; it is known to an eighth.
        let many: Vec<_> = (0..1_000).map(asked).collect();
        let held = after(&many, BUFFER).held() / BUFFER;
        assert!((90..=104).contains(&held), "{held}");
        // What pushes them out is not kept itself.
        let others = (0..140).map(|_| literal(ENTERS, 0, "x", "y"));
        let blocks: Vec<_> = many.into_iter().chain(others).chain([vec![0x82]]).collect();
        assert_eq!(after(&blocks, BUFFER).held(), 0);
    }

    #[test]
    fn what_does_not_enter_or_is_copied_holds_nothing() {
        let fields = [
            literal(STAYS_OUT, 1, "", "host"),
            literal(0x10, 4, "", "/secret"),
            literal(ENTERS, 2, "", "PURGE"),
            literal(ENTERS, 0, "x-path", ":path"),
            vec![0x82, 0x84],
        ];
        let blocks: Vec<_> = fields.iter().cycle().take(100).cloned().collect();
        assert_eq!(after(&blocks, BUFFER).held(), 0);
    }

    #[test]
    fn a_name_is_known_when_it_is_said_compressed_or_taken_from_an_entry() {
        let said = literal(ENTERS, 0, ":path", "/a");
        // `:path` in the code of RFC 7541, appendix B.
        let compressed = [&[ENTERS, 0x84, 0xb9, 0x58, 0xd3, 0x3f], &b"\x01/"[..]].concat();
        let other = literal(ENTERS, 0, "x", "");
        let newest = literal(ENTERS, 62, "", "/b");
        let older = vec![0x7f, 0, 1, b'c'];
        assert_eq!(after(&[said.clone(), compressed, newest.clone()], BUFFER).held(), 2 * BUFFER);
        assert_eq!(after(&[said.clone(), other.clone(), newest], BUFFER).held(), 0, "it is the other's");
        assert_eq!(after(&[said, other, older], BUFFER).held(), BUFFER, "63 takes a second byte");
    }

    #[test]
    fn a_table_that_is_emptied_holds_nothing_and_long_frames_count_as_long() {
        let mut blocks: Vec<_> = (0..10).map(|_| literal(ENTERS, 4, "", "/")).collect();
        let mut table = after(&blocks, BUFFER);
        table.frame(16_384);
        assert_eq!(table.held(), 9 * 16_384);
        blocks.push(vec![0x20]);
        assert_eq!(after(&blocks, BUFFER).held(), 0);
    }

    #[test]
    fn blocks_may_be_cut_anywhere_padded_and_have_a_priority() {
        let long = "v".repeat(120);
        let block = [
            literal(ENTERS, 0, "x-long", &long),
            vec![STAYS_OUT, 0x7f, 0x81, 0x01],
            vec![b'n'; 256],
            vec![0],
            literal(ENTERS, 1, "", "host"),
            vec![0xff, 0x80, 0x01],
        ]
        .concat();
        let frame = [&[2, 0, 0, 0, 1, 16][..], &block, &literal(ENTERS, 4, "", "")].concat();
        for size in 1..=frame.len() {
            let mut table = Table::default();
            for turn in 1..=3 {
                table.begin(frame.len(), true, true);
                frame.chunks(size).for_each(|piece| table.read(piece, turn * BUFFER));
            }
            assert_eq!((table.held(), table.next), (2 * BUFFER, Next::Field), "pieces of {size}");
            assert_eq!(table.names, 0b01_0101, "the padding is no field");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_the_same_however_it_is_cut(
            frames in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..300), any::<(bool, bool)>()), 1..20),
            size in 1usize..40,
        ) {
            let (mut whole, mut cut) = (Table::default(), Table::default());
            for (at, (frame, (padded, priority))) in frames.iter().enumerate() {
                let position = at as u64 * BUFFER;
                whole.begin(frame.len(), *padded, *priority);
                whole.read(frame, position);
                cut.begin(frame.len(), *padded, *priority);
                frame.chunks(size).for_each(|piece| cut.read(piece, position));
            }
            prop_assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
            prop_assert!(whole.held() <= 150 * BUFFER);
        }
    }
}
