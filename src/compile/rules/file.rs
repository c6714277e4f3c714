//! What can be wrong with a file before its workflows are understood. The checks themselves are in the reader.

use super::Rule;

pub(in crate::compile) const UNREADABLE: Rule =
    rule!(Error "XE0001", "file can't be read", "make it readable for whoever runs xene, or list it in .xeneignore");
pub(in crate::compile) const TOO_LARGE: Rule =
    rule!(Error "XE0002", "file is too large", "make several files of it, or list it in .xeneignore");
pub(in crate::compile) const NOT_UTF8: Rule = rule!(Error "XE0003", "file is not UTF-8", "save the file as UTF-8");
pub(in crate::compile) const SYNTAX: Rule = rule!(
    Error "XE0004", "not YAML or JSON",
    "look at the line above, too: most often a quote, a bracket or an indentation is to blame"
);
pub(in crate::compile) const TAB: Rule = rule!(Error "XE0005", "tab in indentation", "indent with spaces");
pub(in crate::compile) const CONFLICT: Rule =
    rule!(Error "XE0006", "merge conflict", "resolve it, and commit the file again");
pub(in crate::compile) const TOO_DEEP: Rule =
    rule!(Error "XE0007", "nested too deep", "a workflow needs far fewer levels: this is most often data");
pub(in crate::compile) const ALIASES: Rule = rule!(Error "XE0008", "aliases expand too far", "write out what is meant");
pub(in crate::compile) const TAG: Rule =
    rule!(Error "XE0009", "unknown tag", "take it out; a text that begins with `!` stands in quotes");
pub(in crate::compile) const DUPLICATE_KEY: Rule =
    rule!(Error "XE0010", "key written twice", "take one of the two out");
pub(in crate::compile) const UNKNOWN_FIELD: Rule =
    rule!(Error "XE0011", "unknown field", "take it out, or see docs/reference/language.md for what there is");
pub(in crate::compile) const MISSING_FIELD: Rule = rule!(Error "XE0012", "missing field", "add it");
pub(in crate::compile) const WRONG_VALUE: Rule =
    rule!(Error "XE0013", "wrong type or value", "`xene explain XE0013` shows what is written how");
pub(in crate::compile) const BAD_NAME: Rule = rule!(
    Error "XE0014", "bad name",
    "a name has letters, digits, - _ and ., and begins and ends with a letter or digit"
);
pub(in crate::compile) const UNKNOWN_KIND: Rule =
    rule!(Error "XE0015", "unknown kind of object", "list the file in .xeneignore if it is not meant for xene");
pub(in crate::compile) const LATER_KIND: Rule =
    rule!(Error "XE0016", "kind of object not taken yet", "keep it out of the folder, or list it in .xeneignore");
pub(in crate::compile) const DUPLICATE_NAME: Rule =
    rule!(Error "XE0017", "name taken", "give one of them another name");
pub(in crate::compile) const NEARLY_OURS: Rule = rule!(
    Warning "XE0132", "document that looks like a workflow",
    "a workflow begins with `apiVersion: xene/v1` and `kind: Workflow`"
);
pub(in crate::compile) const NEEDS_CONTAINER: Rule = rule!(
    Warning "XE0133", "needs a container",
    "`xene validate --convert FILE` prints it in today's format, to be written for a shell"
);
