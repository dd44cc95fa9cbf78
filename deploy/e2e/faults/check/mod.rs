//! Judges a campaign by what its clients were told. Each check is a pure function of recorded data
//! and finds the violations that are planted in its tests.

pub(crate) mod leases;
pub(crate) mod linear;
pub(crate) mod order;
pub(crate) mod peeks;
pub(crate) mod watches;
pub(crate) mod writes;

#[cfg(test)]
pub(crate) mod sample;
