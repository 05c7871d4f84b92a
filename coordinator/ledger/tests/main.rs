//! Tests of the ledger from outside: readable transcripts, random commands, golden files.
mod bench;
mod budgets;
mod eta;
mod golden;
mod random;
mod script;
mod shares;
mod slices;
mod transcripts;
