//! LMDB as both data folders use it: one environment, a map that grows by itself, one writer that groups commits.
