//! The reference pages: generated from the code, and compared.
