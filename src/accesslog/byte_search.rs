//! Byte searches within a line, sixteen bytes per step. Matches are mostly a few dozen bytes away, where the setup of
//! `memchr` costs more than the search.

#![expect(clippy::indexing_slicing, reason = "audited: the positions come from searches of the same bytes; fuzzed")]

use wide::u8x16;

/// Position of the first `byte`.
#[inline]
pub(super) fn find(text: &[u8], byte: u8) -> Option<usize> {
    first_marked(text, |bytes| bytes.simd_eq(u8x16::splat(byte)))
}

/// Position of the first `a` or `b`.
#[inline]
pub(super) fn find_either(text: &[u8], a: u8, b: u8) -> Option<usize> {
    first_marked(text, |bytes| bytes.simd_eq(u8x16::splat(a)) | bytes.simd_eq(u8x16::splat(b)))
}

/// Position of the first byte that needs attention in a JSON string: a quote, a backslash, a control character, or a byte
/// that is not ASCII.
#[inline]
pub(super) fn find_special(text: &[u8]) -> Option<usize> {
    let is_special = |bytes: u8x16| {
        let is_control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
        // Only the highest bit of each lane counts, and it is set in bytes that are not ASCII.
        bytes.simd_eq(u8x16::splat(b'"')) | bytes.simd_eq(u8x16::splat(b'\\')) | is_control | bytes
    };
    first_marked(text, is_special)
}

/// Position of the first byte whose lane in `mark` has its highest bit set.
#[inline]
fn first_marked(text: &[u8], mark: impl Fn(u8x16) -> u8x16) -> Option<usize> {
    let mut rest = text;
    while let Some((chunk, after)) = rest.split_first_chunk::<16>() {
        let mask = mark(u8x16::new(*chunk)).to_bitmask();
        if mask != 0 {
            return Some(text.len() - rest.len() + mask.trailing_zeros() as usize);
        }
        rest = after;
    }
    // The remainder: reload the last sixteen bytes and shift out the searched ones, or pad a shorter text.
    let mask = match text.last_chunk::<16>() {
        Some(last) => mark(u8x16::new(*last)).to_bitmask() >> (16 - rest.len()),
        None => {
            let mut last = [0; 16];
            last[..rest.len()].copy_from_slice(rest);
            mark(u8x16::new(last)).to_bitmask()
        }
    };
    let position = mask.trailing_zeros() as usize;
    (position < rest.len()).then_some(text.len() - rest.len() + position)
}

/// The number of one to seven digits at the start of a text, and the rest. All digits are converted in one step, because
/// a branch on their count is unpredictable.
#[inline]
pub(super) fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let chunk = u64::from_le_bytes(*text.first_chunk()?);
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The highest bit is set in each byte that is not a digit: above '9', below '0', or not ASCII.
    let non_digits = (chunk.wrapping_add(0x46 * ONES) | chunk.wrapping_sub(0x30 * ONES) | chunk) & (0x80 * ONES);
    let count = non_digits.trailing_zeros() as usize / 8;
    if !(1..8).contains(&count) {
        return None;
    }
    // Shift the digits to the high end with zeros before them, then add neighbors: ones, pairs, fours.
    let digits = (chunk << (64 - 8 * count)) & (0x0f * ONES);
    let pairs = (digits.wrapping_mul(10 << 8 | 1) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100 << 16 | 1) >> 16) & 0x0000_ffff_0000_ffff;
    Some((fours.wrapping_mul(10_000 << 32 | 1) >> 32, &text[count..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parses_numbers_as_a_digit_loop_does(text in prop::collection::vec(prop_oneof![4 => b'0'..=b'9', 1 => any::<u8>()], 0..12)) {
            let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let expected = std::str::from_utf8(&text[..count]).unwrap().parse().ok();
            let parsed = number(&text);
            prop_assert!(parsed.is_some() || text.len() < 8 || !(1..8).contains(&count));
            if let Some((number, rest)) = parsed {
                prop_assert_eq!((Some(number), rest), (expected, &text[count..]));
            }
        }

        #[test]
        fn finds_the_same_positions_as_a_byte_loop(text in prop::collection::vec(prop_oneof![9 => b'a'..=b'z', 1 => any::<u8>()], 0..200), byte: u8) {
            let position = |matches: &dyn Fn(u8) -> bool| text.iter().position(|byte| matches(*byte));
            for needle in [byte, b'"', b' '] {
                prop_assert_eq!(find(&text, needle), position(&|byte| byte == needle));
            }
            prop_assert_eq!(find_either(&text, b'"', byte), position(&|other| other == b'"' || other == byte));
            let is_special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\' || !byte.is_ascii();
            prop_assert_eq!(find_special(&text), position(&is_special));
        }
    }
}
