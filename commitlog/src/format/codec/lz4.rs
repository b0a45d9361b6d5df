//! LZ4 frames as Kafka's reader takes them: exactly one frame to its end mark,
//! with independent blocks and without a dictionary.

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use std::io::Write;

const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();

/// Magic, flags, block size, checksum of the header.
const MIN_HEADER_LEN: usize = 7;

const INDEPENDENT_BLOCKS: u8 = 1 << 5;
const BLOCK_CHECKSUMS: u8 = 1 << 4;
const CONTENT_SIZE: u8 = 1 << 3;
const CONTENT_CHECKSUM: u8 = 1 << 2;
const DICTIONARY: u8 = 1;

/// Set in a block's length if the block is not compressed.
const PLAIN_BLOCK: u32 = 1 << 31;

/// Writes what Kafka's `Lz4BlockOutputStream` does: blocks of 64 KiB, no
/// checksums but the header's.
pub(super) fn compress(records: &[u8]) -> Vec<u8> {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(records).expect("writing to memory does not fail");
    encoder.finish().expect("writing to memory does not fail")
}

pub(super) fn reader(compressed: &[u8]) -> Result<FrameDecoder<&[u8]>, String> {
    check_frame(compressed)?;
    Ok(FrameDecoder::new(compressed))
}

/// Steps over the blocks: the decoder takes more than Kafka does, and a frame
/// without its end mark for a whole one.
fn check_frame(compressed: &[u8]) -> Result<(), String> {
    if !compressed.starts_with(&MAGIC) {
        return Err("not a frame".to_owned());
    }
    let flags = *compressed.get(4).ok_or("the header is cut off")?;
    let has = |flag: u8| flags & flag != 0;
    if !has(INDEPENDENT_BLOCKS) {
        return Err("blocks that depend on each other".to_owned());
    }
    if has(DICTIONARY) {
        return Err("a dictionary".to_owned());
    }
    let header = MIN_HEADER_LEN + if has(CONTENT_SIZE) { 8 } else { 0 };
    let mut rest = compressed.get(header..).ok_or("the header is cut off")?;
    loop {
        let (len, behind) = rest.split_first_chunk().ok_or("no end mark")?;
        let len = u32::from_le_bytes(*len);
        if len == 0 {
            let checksum = if has(CONTENT_CHECKSUM) { 4 } else { 0 };
            return match behind.len() {
                len if len == checksum => Ok(()),
                len => Err(format!("{len} bytes behind the end mark")),
            };
        }
        let checksum = if has(BLOCK_CHECKSUMS) { 4 } else { 0 };
        let len = (len & !PLAIN_BLOCK) as usize + checksum;
        rest = behind.get(len..).ok_or("a block is cut off")?;
    }
}
