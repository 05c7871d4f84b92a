//! The context from outside: what is sealed can be opened, what is damaged cannot, and nobody sees too much.

mod chains;
mod segments;
mod views;
