//! Payload: the 100 bytes that every peer delivers.

/// Carries the number of its event, so that a subscriber sees a gap.
pub(crate) struct Payload([u8; 100]);

impl Payload {
    pub(crate) fn new(number: u64) -> Self {
        let mut bytes = [7; 100];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Self(bytes)
    }

    pub(crate) fn number(&self) -> u64 {
        let mut number = [0; 8];
        number.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(number)
    }
}
