//! As much of DER (X.690 §8, §10) as a trust store needs to be written.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const BMP_STRING: u8 = 0x1e;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
/// `[0] EXPLICIT`.
pub(super) const CONTEXT_0: u8 = 0xa0;

/// A value of these parts, one after the other.
pub(super) fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut value = vec![tag];
    push_length(&mut value, length);
    value.extend(parts.iter().copied().flatten());
    value
}

/// A set, whose members are in ascending order (X.690 §11.6).
pub(super) fn set_of(mut members: Vec<Vec<u8>>) -> Vec<u8> {
    members.sort();
    value(SET, &[&members.concat()])
}

/// One byte below 128; otherwise how many bytes, and they, the first not 0.
fn push_length(value: &mut Vec<u8>, length: usize) {
    if let Ok(short @ ..0x80) = u8::try_from(length) {
        return value.push(short);
    }
    let bytes = length.to_be_bytes();
    let digits = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or_default()..];
    value.push(0x80 | digits.len().to_le_bytes()[0]);
    value.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_in_as_few_bytes_as_can_be() {
        for (length, head) in [
            (0, &[0x04, 0x00][..]),
            (127, &[0x04, 0x7f]),
            (128, &[0x04, 0x81, 0x80]),
            (255, &[0x04, 0x81, 0xff]),
            (256, &[0x04, 0x82, 0x01, 0x00]),
            (70_000, &[0x04, 0x83, 0x01, 0x11, 0x70]),
        ] {
            let value = value(OCTET_STRING, &[&vec![7; length]]);
            assert_eq!(&value[..head.len()], head);
            assert_eq!(value.len(), head.len() + length);
        }
    }

    #[test]
    fn the_members_of_a_set_are_sorted() {
        assert_eq!(set_of(vec![vec![2, 1, 9], vec![2, 1, 3]]), [0x31, 6, 2, 1, 3, 2, 1, 9]);
    }
}
