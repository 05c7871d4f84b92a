//! Tests of the ledger from outside: readable transcripts, random commands, golden files.
mod golden;
mod random;
mod script;
mod transcripts;
