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

/// Cuts a block into runs, each with whether it is dense. An empty block is one run.
pub(super) fn runs(block: &[u8]) -> Vec<(&[u8], bool)> {
    let mut runs = Vec::new();
    let mut start = 0;
    let mut end = 0;
    let mut dense = false;
    for segment in block.chunks(SEGMENT) {
        let this = is_dense(segment);
        if this != dense && end > start {
            runs.push((&block[start..end], dense));
            start = end;
        }
        dense = this;
        end += segment.len();
    }
    runs.push((&block[start..], dense));
    runs
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
            ("zeros", vec![0; SEGMENT], false),
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
            assert_eq!(is_dense(&segment), expected, "{name}");
        }
        let packed = zstd::bulk::compress(&random.iter().map(|b| b & 31).collect::<Vec<_>>(), 3).unwrap();
        assert!(is_dense(&packed), "compressed bytes");
    }

    #[test]
    fn runs_cover_the_block() {
        let (dense, plain) = (noise(SEGMENT, 3), vec![b'x'; SEGMENT]);
        type Runs = Vec<(usize, bool)>;
        let cases: Vec<(Vec<&[u8]>, Runs)> = vec![
            (vec![], vec![(0, false)]),
            (vec![&plain, &plain], vec![(2 * SEGMENT, false)]),
            (vec![&dense, &dense, &plain], vec![(2 * SEGMENT, true), (SEGMENT, false)]),
            (vec![&plain, &dense, &plain[..7]], vec![(SEGMENT, false), (SEGMENT, true), (7, false)]),
        ];
        for (parts, expected) in cases {
            let block = parts.concat();
            let runs = runs(&block);
            assert_eq!(runs.iter().map(|(run, dense)| (run.len(), *dense)).collect::<Vec<_>>(), expected);
            assert!(runs.iter().map(|(run, _)| *run).collect::<Vec<_>>().concat() == block);
        }
    }
}
