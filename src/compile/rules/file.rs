//! What can be wrong with a file before its workflows are understood. The checks themselves are in the reader.

use super::Rule;

pub(in crate::compile) const UNREADABLE: Rule = rule!(Error "XE0001", "file can't be read");
pub(in crate::compile) const TOO_LARGE: Rule = rule!(Error "XE0002", "file is too large");
pub(in crate::compile) const NOT_UTF8: Rule = rule!(Error "XE0003", "file is not UTF-8");
pub(in crate::compile) const SYNTAX: Rule = rule!(Error "XE0004", "not YAML or JSON");
pub(in crate::compile) const TAB: Rule = rule!(Error "XE0005", "tab in indentation");
pub(in crate::compile) const CONFLICT: Rule = rule!(Error "XE0006", "merge conflict");
pub(in crate::compile) const TOO_DEEP: Rule = rule!(Error "XE0007", "nested too deep");
pub(in crate::compile) const ALIASES: Rule = rule!(Error "XE0008", "aliases expand too far");
pub(in crate::compile) const TAG: Rule = rule!(Error "XE0009", "unknown tag");
pub(in crate::compile) const DUPLICATE_KEY: Rule = rule!(Error "XE0010", "key written twice");
pub(in crate::compile) const UNKNOWN_FIELD: Rule = rule!(Error "XE0011", "unknown field");
pub(in crate::compile) const MISSING_FIELD: Rule = rule!(Error "XE0012", "missing field");
pub(in crate::compile) const WRONG_VALUE: Rule = rule!(Error "XE0013", "wrong type or value");
pub(in crate::compile) const BAD_NAME: Rule = rule!(Error "XE0014", "bad name");
pub(in crate::compile) const UNKNOWN_KIND: Rule = rule!(Error "XE0015", "unknown kind of object");
pub(in crate::compile) const LATER_KIND: Rule = rule!(Error "XE0016", "kind of object not taken yet");
pub(in crate::compile) const DUPLICATE_NAME: Rule = rule!(Error "XE0017", "name taken");
pub(in crate::compile) const NEARLY_OURS: Rule = rule!(Warning "XE0132", "document that looks like a workflow");
pub(in crate::compile) const NEEDS_CONTAINER: Rule = rule!(Error "XE0133", "needs a container");
