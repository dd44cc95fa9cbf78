//! Read buffers that are used again: a block handed to the core returns here when it is dropped.
//!
//! A fresh 256 KiB buffer per read would cost a page fault per 4 KiB, which is more than the scan
//! for newlines. Small reads are copied instead, so that a quiet file does not hold a buffer.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Buffers kept for the next reads.
const KEPT_MAX: usize = 4;
/// What is read up to this size is copied out of the buffer.
const COPIED_MAX_BYTES: usize = 16 * 1024;

type Kept = Arc<Mutex<Vec<Vec<u8>>>>;

/// Buffers of one size.
#[derive(Debug)]
pub struct BlockPool {
    block_bytes: usize,
    kept: Kept,
}

impl BlockPool {
    pub fn new(block_bytes: usize) -> Self {
        Self {
            block_bytes,
            kept: Kept::default(),
        }
    }

    /// One `pread`. Empty at the end of the file.
    pub fn read(&self, file: &File, offset: u64, max_bytes: usize) -> std::io::Result<Bytes> {
        if max_bytes > self.block_bytes {
            let mut buffer = vec![0; max_bytes];
            let filled = read_at(file, &mut buffer, offset)?;
            buffer.truncate(filled);
            return Ok(buffer.into());
        }
        let mut buffer = self.take();
        let filled = read_at(file, &mut buffer[..max_bytes], offset);
        let mut block = PooledBlock {
            filled: 0,
            buffer,
            kept: Arc::clone(&self.kept),
        };
        block.filled = filled?;
        if block.filled <= COPIED_MAX_BYTES {
            return Ok(Bytes::copy_from_slice(block.as_ref()));
        }
        Ok(Bytes::from_owner(block))
    }

    fn take(&self) -> Vec<u8> {
        self.kept
            .lock()
            .pop()
            .unwrap_or_else(|| vec![0; self.block_bytes])
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

struct PooledBlock {
    buffer: Vec<u8>,
    filled: usize,
    kept: Kept,
}

impl AsRef<[u8]> for PooledBlock {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }
}

impl Drop for PooledBlock {
    fn drop(&mut self) {
        let mut kept = self.kept.lock();
        if kept.len() < KEPT_MAX {
            kept.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn blocks_return_to_the_pool_and_keep_their_content_until_then() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        file.write_all(&content).unwrap();
        let pool = BlockPool::new(64 * 1024);
        let first = pool.read(&file, 0, 64 * 1024).unwrap();
        let second = pool.read(&file, 10, 64 * 1024).unwrap();
        assert_eq!(first, content[..64 * 1024]);
        assert_eq!(second, content[10..10 + 64 * 1024]);
        assert_eq!(pool.kept.lock().len(), 0);
        drop((first, second));
        assert_eq!(pool.kept.lock().len(), 2);
        assert_eq!(
            pool.read(&file, 99_990, 64 * 1024).unwrap(),
            content[99_990..]
        );
        assert_eq!(pool.kept.lock().len(), 2);
        assert_eq!(pool.read(&file, 0, 100_000).unwrap(), content[..]);
        assert!(pool.read(&file, 100_000, 10).unwrap().is_empty());
    }
}
