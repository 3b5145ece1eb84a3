//! A reader that ends well only if it gave what its descriptor names.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};
use solver::Digest;

use super::Error;

/// Checks digest and size of what passes through; the end of file becomes an error when they are wrong.
///
/// The cause is an [`Error::DigestMismatch`] or [`Error::SizeMismatch`] within the `io::Error`.
#[derive(Debug)]
pub struct VerifiedReader<R> {
    inner: R,
    hash: Sha256,
    digest: Digest,
    size: u64,
    read: u64,
}

impl<R: Read> VerifiedReader<R> {
    /// Expects `size` bytes with `digest` from `inner`.
    pub fn new(inner: R, digest: Digest, size: u64) -> Self {
        Self { inner, hash: Sha256::new(), digest, size, read: 0 }
    }

    fn wrong_size(&self, actual: u64) -> io::Error {
        let error = Error::SizeMismatch { digest: self.digest, expected: self.size, actual };
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

impl<R: Read> Read for VerifiedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        self.read += length as u64;
        if self.read > self.size || (length == 0 && self.read < self.size) {
            return Err(self.wrong_size(self.read));
        }
        if length == 0 {
            let actual = Digest::from_bytes(self.hash.clone().finalize().into());
            if actual != self.digest {
                let error = Error::DigestMismatch { expected: self.digest, actual };
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(data: &[u8], digest: Digest, size: u64) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        let read = VerifiedReader::new(data, digest, size).read_to_end(&mut out);
        read.map(|_| out).map_err(|error| error.to_string())
    }

    #[test]
    fn only_the_right_bytes_end_well() {
        let digest = Digest::of(b"abc");
        assert_eq!(check(b"abc", digest, 3), Ok(b"abc".to_vec()));
        assert_eq!(
            check(b"abd", digest, 3),
            Err(format!("blob `{digest}` has the content of `{}`", Digest::of(b"abd")))
        );
        assert_eq!(check(b"ab", digest, 3), Err(format!("blob `{digest}` has 2 bytes instead of 3")));
        assert_eq!(check(b"abcd", digest, 3), Err(format!("blob `{digest}` has 4 bytes instead of 3")));
    }
}
