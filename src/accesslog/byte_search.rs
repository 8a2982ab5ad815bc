//! Searches within a line, sixteen bytes in a step. What is looked for mostly stands a few dozen bytes away: a search
//! for long texts would be over later than it is called.

use wide::u8x16;

/// Where a byte first stands.
#[inline]
pub(super) fn find(text: &[u8], byte: u8) -> Option<usize> {
    first(text, |bytes| bytes.simd_eq(u8x16::splat(byte)))
}

/// Where one of two bytes first stands.
#[inline]
pub(super) fn find_either(text: &[u8], a: u8, b: u8) -> Option<usize> {
    first(text, |bytes| bytes.simd_eq(u8x16::splat(a)) | bytes.simd_eq(u8x16::splat(b)))
}

/// Where a byte first stands that ends a text in JSON, or that is no plain ASCII, or begins an escape.
#[inline]
pub(super) fn find_special(text: &[u8]) -> Option<usize> {
    let is_special = |bytes: u8x16| {
        let is_control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
        // Only the highest bits count: in the bytes themselves they are set where it is no ASCII.
        bytes.simd_eq(u8x16::splat(b'"')) | bytes.simd_eq(u8x16::splat(b'\\')) | is_control | bytes
    };
    first(text, is_special)
}

/// The first byte for which the highest bit is set in what is given for it.
#[inline]
fn first(text: &[u8], mark: impl Fn(u8x16) -> u8x16) -> Option<usize> {
    let mut rest = text;
    while let Some((chunk, after)) = rest.split_first_chunk::<16>() {
        let mask = mark(u8x16::new(*chunk)).to_bitmask();
        if mask != 0 {
            return Some(text.len() - rest.len() + mask.trailing_zeros() as usize);
        }
        rest = after;
    }
    // What is left, at the front: together with bytes that were seen, or with nothing.
    let mask = match text.last_chunk::<16>() {
        Some(last) => mark(u8x16::new(*last)).to_bitmask() >> (16 - rest.len()),
        None => {
            let mut last = [0; 16];
            last[..rest.len()].copy_from_slice(rest);
            mark(u8x16::new(last)).to_bitmask()
        }
    };
    let at = mask.trailing_zeros() as usize;
    (at < rest.len()).then_some(text.len() - rest.len() + at)
}

/// The number with which a text begins, if it has one to seven digits, and what follows them. All digits are looked at in
/// one step: how many there are, no guess would tell.
#[inline]
pub(super) fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let word = u64::from_le_bytes(*text.first_chunk()?);
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The highest bit of a byte is set where it is no digit: too large, or too small, or set from the start.
    let others = (word.wrapping_add(0x46 * ONES) | word.wrapping_sub(0x30 * ONES) | word) & (0x80 * ONES);
    let count = others.trailing_zeros() as usize / 8;
    if !(1..8).contains(&count) {
        return None;
    }
    // Digits to the end, zeros before them; then neighbours together, by ones, twos and fours.
    let digits = (word << (64 - 8 * count)) & (0x0f * ONES);
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
        fn numbers_as_digit_by_digit(text in prop::collection::vec(prop_oneof![4 => b'0'..=b'9', 1 => any::<u8>()], 0..12)) {
            let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let wanted = std::str::from_utf8(&text[..count]).unwrap().parse().ok();
            let found = number(&text);
            prop_assert!(found.is_some() || text.len() < 8 || !(1..8).contains(&count));
            if let Some((number, rest)) = found {
                prop_assert_eq!((Some(number), rest), (wanted, &text[count..]));
            }
        }

        #[test]
        fn as_one_by_one(text in prop::collection::vec(prop_oneof![9 => b'a'..=b'z', 1 => any::<u8>()], 0..200), byte: u8) {
            let place = |is: &dyn Fn(u8) -> bool| text.iter().position(|byte| is(*byte));
            for byte in [byte, b'"', b' '] {
                prop_assert_eq!(find(&text, byte), place(&|one| one == byte));
            }
            prop_assert_eq!(find_either(&text, b'"', byte), place(&|one| one == b'"' || one == byte));
            let is_special = |one: u8| one < 0x20 || one == b'"' || one == b'\\' || !one.is_ascii();
            prop_assert_eq!(find_special(&text), place(&is_special));
        }
    }
}
