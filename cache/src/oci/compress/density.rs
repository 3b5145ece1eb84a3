//! Telling bytes that deflate cannot make smaller, because they are compressed or random already.
//!
//! Layers hold many of them: packages, wheels, jars, pictures. Storing them costs nothing in size and is
//! about ten times as fast. The judgement uses integers only, so it is the same on every machine.

/// Bytes that are judged together.
const SEGMENT: usize = 64 << 10;
/// Bytes at the start of a segment that must look dense before all of it is looked at.
const PREFIX: usize = 8 << 10;
/// Bytes between two groups of places whose repetition is looked for.
const GROUP: usize = 256;
/// Places in a group, one after the other, so that looking at each such many places meets one of them.
const STEP: usize = 16;
/// Repeated places that make a segment worth deflating: one of 3 % of the groups.
const MAX_REPEATS: usize = 8;
/// Slots for places, by hash: twice as many as places.
const SLOTS: usize = SEGMENT / GROUP * STEP * 2;
/// Bytes that must be equal for a repetition.
const WORD: usize = 8;

/// What a run of bytes is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Density {
    /// Nothing but zeros, which disk images and sparse files are full of.
    Zeros,
    /// What deflate is for.
    Plain,
    /// What deflate cannot make smaller.
    Dense,
}

/// Cuts a block into runs of one density. An empty block is one run.
pub(super) fn runs(block: &[u8]) -> Vec<(&[u8], Density)> {
    let mut runs = Vec::new();
    let mut start = 0;
    let mut end = 0;
    let mut density = Density::Plain;
    for segment in block.chunks(SEGMENT) {
        let this = density_of(segment);
        if this != density && end > start {
            runs.push((&block[start..end], density));
            start = end;
        }
        density = this;
        end += segment.len();
    }
    runs.push((&block[start..], density));
    runs
}

fn density_of(segment: &[u8]) -> Density {
    if is_zeros(segment) {
        Density::Zeros
    } else if is_dense(segment) {
        Density::Dense
    } else {
        Density::Plain
    }
}

/// Whether the first byte is zero and all others are as the one before.
fn is_zeros(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0) && bytes[1..] == bytes[..bytes.len() - 1]
}

/// Whether a segment has all byte values about equally often, and no repetitions.
fn is_dense(segment: &[u8]) -> bool {
    segment.len() > PREFIX
        && is_even(&segment[..PREFIX], 200)
        && is_even(segment, 240)
        && repeats(segment) <= MAX_REPEATS
}

/// Whether two bytes picked at random are equal in less than one of `odds` cases.
///
/// For evenly spread bytes it is one in 256. One in 240 is a Rényi entropy of 7.9 bits a byte, so
/// coding them by frequency would gain less than 1.25 %.
fn is_even(bytes: &[u8], odds: u64) -> bool {
    // Four tables, or equal neighbours would wait for each other's count.
    let mut tables = [[0_u32; 256]; 4];
    for four in bytes.chunks_exact(4) {
        for (table, byte) in tables.iter_mut().zip(four) {
            table[usize::from(*byte)] += 1;
        }
    }
    let count = |value: usize| tables.iter().map(|table| u64::from(table[value])).sum::<u64>();
    let squares: u64 = (0..256).map(|value| count(value).pow(2)).sum();
    let length = (bytes.len() / 4 * 4) as u64;
    squares * odds <= length * length
}

/// How many groups of places come again elsewhere in the segment; repetitions of some 280 bytes are surely seen.
fn repeats(segment: &[u8]) -> usize {
    // 0 is an empty slot, others are places plus 1.
    let mut slots = [0_u32; SLOTS];
    let end = segment.len().saturating_sub(WORD);
    for group in (0..end).step_by(GROUP) {
        for place in group..end.min(group + STEP) {
            slots[slot(word(segment, place))] = place as u32 + 1;
        }
    }
    let is_repeated = |at: &usize| {
        let value = word(segment, *at);
        let place = (slots[slot(value)] as usize).wrapping_sub(1);
        place != *at && place < end && word(segment, place) == value
    };
    (0..end).step_by(STEP).filter(is_repeated).count()
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + WORD].try_into().expect("the range has as many bytes"))
}

/// Fibonacci hashing: the upper bits of the product depend on all bits of the word.
fn slot(word: u64) -> usize {
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SLOTS.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that look random, the same in every run.
    fn noise(length: usize, mut state: u64) -> Vec<u8> {
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn only_what_cannot_be_deflated_is_dense() {
        let random = noise(SEGMENT, 1);
        let cases: Vec<(&str, Vec<u8>, bool)> = vec![
            ("noise", random.clone(), true),
            ("ones", vec![1; SEGMENT], false),
            ("a ramp, all values equally often", (0..SEGMENT).map(|i| i as u8).collect(), false),
            ("noise that comes again after 20 KiB", noise(20 << 10, 2).repeat(4)[..SEGMENT].to_vec(), false),
            (
                "noise with short repetitions",
                noise(SEGMENT, 4).chunks(400).flat_map(|c| [c, &c[..100]].concat()).take(SEGMENT).collect(),
                false,
            ),
            ("six-bit noise", random.iter().map(|b| b & 63).collect(), false),
            ("half noise", [&random[..SEGMENT / 2], &vec![0; SEGMENT / 2]].concat(), false),
            ("a little noise", random[..PREFIX].to_vec(), false),
            ("text", "the quick brown fox ".repeat(SEGMENT / 20).into_bytes(), false),
        ];
        for (name, segment, expected) in cases {
            let expected = if expected { Density::Dense } else { Density::Plain };
            assert_eq!(density_of(&segment), expected, "{name}");
        }
        let packed = zstd::bulk::compress(&random.iter().map(|b| b & 31).collect::<Vec<_>>(), 3).unwrap();
        assert!(is_dense(&packed), "compressed bytes");
    }

    #[test]
    fn runs_cover_the_block() {
        use Density::{Dense, Plain, Zeros};
        let (dense, plain, zeros) = (noise(SEGMENT, 3), vec![b'x'; SEGMENT], vec![0; SEGMENT]);
        let almost = [&zeros[1..], b"x"].concat();
        type Runs = Vec<(usize, Density)>;
        let cases: Vec<(Vec<&[u8]>, Runs)> = vec![
            (vec![], vec![(0, Plain)]),
            (vec![&plain, &plain], vec![(2 * SEGMENT, Plain)]),
            (vec![&dense, &dense, &plain], vec![(2 * SEGMENT, Dense), (SEGMENT, Plain)]),
            (vec![&plain, &dense, &plain[..7]], vec![(SEGMENT, Plain), (SEGMENT, Dense), (7, Plain)]),
            (vec![&almost, &zeros, &zeros[..1]], vec![(SEGMENT, Plain), (SEGMENT + 1, Zeros)]),
        ];
        for (parts, expected) in cases {
            let block = parts.concat();
            let runs = runs(&block);
            assert_eq!(runs.iter().map(|(run, density)| (run.len(), *density)).collect::<Vec<_>>(), expected);
            assert!(runs.iter().map(|(run, _)| *run).collect::<Vec<_>>().concat() == block);
        }
    }
}
