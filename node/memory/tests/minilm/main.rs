//! What needs the encoder's weights: `make encoder` fetches them.

mod encoder;
mod recall;
mod support;
