//! Copying with a thread that reads ahead.

use std::io::{self, Read, Write};
use std::sync::mpsc::sync_channel;

/// Bytes that are read at a time.
const CHUNK: usize = 512 << 10;
/// Chunks that wait to be written.
const WAITING: usize = 2;

/// Copies all of `from`, about `size` bytes; what is long is read, and hashed on the way, while earlier bytes are written.
/// Returns how many bytes there were.
pub(super) fn copy_ahead(mut from: impl Read + Send, size: u64, to: &mut impl Write) -> io::Result<u64> {
    if size <= CHUNK as u64 {
        return io::copy(&mut from, to);
    }
    std::thread::scope(|scope| {
        let (sender, chunks) = sync_channel(WAITING);
        scope.spawn(move || {
            loop {
                let mut chunk = Vec::with_capacity(CHUNK);
                let read = from.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
                let more = matches!(read, Ok(n) if n > 0);
                // Nobody takes it when writing failed.
                if sender.send(read.map(|_| chunk)).is_err() || !more {
                    return;
                }
            }
        });
        let mut copied = 0;
        for chunk in chunks {
            let chunk = chunk?;
            to.write_all(&chunk)?;
            copied += chunk.len() as u64;
        }
        Ok(copied)
    })
}
