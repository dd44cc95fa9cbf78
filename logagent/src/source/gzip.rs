//! A gzip file, read as if it were the file that it was made of.
//!
//! Decompression goes forward only. What the next reads may ask for again stays in memory: they
//! begin shortly before the end of the last one. Going back further begins anew.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _};
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

/// Decompressed at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Decompressed in one turn; the other files have their turns in between.
const TURN_MAX_BYTES: usize = 8 * 1024 * 1024;
/// The file ends with the size of what was compressed, modulo 2³².
const SIZE_BYTES: u64 = 4;

/// See the module's words.
pub struct GzipReader {
    decoder: MultiGzDecoder<BufReader<File>>,
    /// Content from `window_start` on.
    window: Vec<u8>,
    window_start: u64,
    at_end: bool,
}

impl GzipReader {
    pub fn new(file: File) -> Self {
        Self {
            decoder: MultiGzDecoder::new(BufReader::new(file)),
            window: Vec::new(),
            window_start: 0,
            at_end: false,
        }
    }

    /// What the file says of the size of its content, modulo 2³².
    pub fn size_hint(file: &File) -> std::io::Result<u64> {
        let end = file.metadata()?.len();
        let mut size = [0; SIZE_BYTES as usize];
        let at = end
            .checked_sub(SIZE_BYTES)
            .ok_or(std::io::ErrorKind::UnexpectedEof)?;
        file.read_exact_at(&mut size, at)?;
        Ok(u32::from_le_bytes(size).into())
    }

    /// Content at an offset; short only at its end. `None`: not there yet, ask again.
    pub fn read(&mut self, offset: u64, max_bytes: usize) -> std::io::Result<Option<Bytes>> {
        if offset < self.window_start {
            self.begin_anew()?;
        }
        let end = offset + max_bytes as u64;
        let mut decompressed = 0;
        loop {
            self.forget_before(offset);
            let window_end = self.window_start + self.window.len() as u64;
            if self.at_end || window_end >= end {
                break;
            }
            if decompressed >= TURN_MAX_BYTES {
                return Ok(None);
            }
            let kept = self.window.len();
            self.window.resize(kept + CHUNK_BYTES, 0);
            let filled = self.decoder.read(&mut self.window[kept..]);
            self.window.truncate(kept + *filled.as_ref().unwrap_or(&0));
            let filled = filled?;
            self.at_end = filled == 0;
            decompressed += filled;
        }
        let from = self.window.len().min((offset - self.window_start) as usize);
        let to = self.window.len().min(from + max_bytes);
        Ok(Some(Bytes::copy_from_slice(&self.window[from..to])))
    }

    fn forget_before(&mut self, offset: u64) {
        let passed = (offset - self.window_start).min(self.window.len() as u64);
        self.window.drain(..passed as usize);
        self.window_start += passed;
    }

    fn begin_anew(&mut self) -> std::io::Result<()> {
        let mut file = self.decoder.get_ref().get_ref().try_clone()?;
        file.rewind()?;
        *self = Self::new(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(parts: &[&[u8]]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        for part in parts {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(part).unwrap();
            file.write_all(&encoder.finish().unwrap()).unwrap();
        }
        file.rewind().unwrap();
        file
    }

    fn whole(reader: &mut GzipReader, offset: u64, max_bytes: usize) -> Bytes {
        loop {
            if let Some(bytes) = reader.read(offset, max_bytes).unwrap() {
                return bytes;
            }
        }
    }

    #[test]
    fn any_place_reads_as_in_the_file() {
        let content: Vec<u8> = (0..20_000_000_u32).map(|n| (n / 7) as u8).collect();
        let file = packed(&[&content]);
        assert_eq!(GzipReader::size_hint(&file).unwrap(), 20_000_000);
        let mut reader = GzipReader::new(file);
        assert!(
            reader.read(19_000_000, 10).unwrap().is_none(),
            "not in one turn"
        );
        // On, a little back, far back, over the end.
        for (offset, len) in [
            (19_000_000, 256 * 1024),
            (19_100_000, 300_000),
            (19_100_000, 1_024),
            (5, 1_024),
            (19_999_990, 100),
            (20_000_000, 100),
        ] {
            let from = offset as usize;
            let to = content.len().min(from + len);
            assert!(
                whole(&mut reader, offset, len) == content[from..to],
                "{offset}"
            );
        }
    }

    #[test]
    fn several_members_are_one_content_and_damage_is_an_error() {
        let mut reader = GzipReader::new(packed(&[b"one\n", b"two\n"]));
        assert_eq!(whole(&mut reader, 0, 100), "one\ntwo\n");
        let file = packed(&[&[b'x'; 100_000]]);
        file.set_len(60).unwrap();
        let mut reader = GzipReader::new(file);
        assert!(reader.read(0, 200_000).is_err());
    }
}
