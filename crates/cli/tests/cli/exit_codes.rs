//! `run` is transparent: the exit code is the program's own, else the one that
//! stands for what ended it.

use crate::support::{Run, lazaret, module, wat};

#[test]
fn a_program_s_own_code_is_the_command_s() {
    lazaret()
        .arg("run")
        .arg(wat("hello"))
        .run()
        .exits(0)
        .prints("hello, lazaret\n");
    for (status, code) in [
        ("0", 0),
        ("1", 1),
        ("42", 42),
        ("255", 255),
        ("256", 0),
        ("259", 3),
    ] {
        let done = lazaret()
            .arg("run")
            .arg(wat("exit_code"))
            .arg(status)
            .run()
            .exits(code);
        assert_eq!(done.stderr, "", "an exit is nothing to speak of");
    }
}

#[test]
fn a_trap_is_134_and_names_the_functions() {
    lazaret()
        .arg("run")
        .arg(wat("trap"))
        .run()
        .exits(134)
        .prints("")
        .says(&[
            "lazaret: trap: ",
            "unreachable",
            "innermost",
            "middle",
            "_start",
        ]);
    lazaret()
        .arg("run")
        .arg(wat("trap_memory"))
        .run()
        .exits(134)
        .says(&["out of bounds"]);
    lazaret()
        .arg("run")
        .arg(wat("recurse"))
        .run()
        .exits(134)
        .says(&["recursion limit"]);
}

#[test]
fn a_time_limit_is_124() {
    lazaret()
        .args(["run", "--time", "300ms"])
        .arg(wat("loop"))
        .run()
        .exits(124)
        .says(&["time limit", "300ms"]);
    lazaret()
        .args(["run", "--cpu-time", "1s"])
        .arg(wat("loop"))
        .run()
        .exits(124)
        .says(&["processor time"]);
    lazaret()
        .args(["run", "--time", "300ms"])
        .arg(wat("start_loop"))
        .run()
        .exits(124);
}

#[test]
fn a_fuel_limit_is_125_at_the_same_place_each_time() {
    let first = lazaret()
        .args(["run", "--fuel", "1000000"])
        .arg(wat("loop"))
        .run()
        .exits(125)
        .says(&["fuel limit"]);
    let second = lazaret()
        .args(["run", "--fuel", "1000000"])
        .arg(wat("loop"))
        .run()
        .exits(125);
    assert_eq!(first.stderr, second.stderr);
    lazaret()
        .args(["run", "--fuel", "1000000"])
        .arg(wat("hello"))
        .run()
        .exits(0);
}

#[test]
fn a_program_that_ends_for_want_of_memory_is_137() {
    let directory = tempfile::tempdir().unwrap();
    let text = r#"(module (memory (export "memory") 1)
        (func (export "_start") (loop $grow
            (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable)) (br $grow))))"#;
    let hungry = module(directory.path(), "hungry.wat", text);
    lazaret()
        .args(["run", "--memory", "64MiB"])
        .arg(hungry)
        .run()
        .exits(137)
        .says(&["memory limit"]);
    // One that can do with what it got is not killed.
    lazaret()
        .args(["run", "--memory", "64MiB"])
        .arg(wat("memory_hog"))
        .run()
        .exits(0)
        .prints("refused\n");
}

#[test]
fn an_output_limit_is_153_and_cuts_there() {
    let done = lazaret()
        .args(["run", "--output-limit", "100KiB"])
        .arg(wat("flood"))
        .run()
        .exits(153)
        .says(&["output limit"]);
    assert_eq!(done.stdout.len(), 100 << 10);
}

#[test]
fn what_can_t_be_run_is_2() {
    lazaret()
        .args(["run", "--no-such-flag"])
        .arg(wat("hello"))
        .run()
        .exits(2);
    lazaret()
        .arg("run")
        .arg(wat("no_start"))
        .run()
        .fails(2, &["_start"]);
    lazaret()
        .arg("run")
        .arg(wat("wrong_signature"))
        .run()
        .fails(2, &["fd_write"]);
}
