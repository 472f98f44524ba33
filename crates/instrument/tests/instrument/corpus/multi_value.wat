;; call swap 1 2L
;; call swap 0 9L
;; call nested 5
;; call nested 0
;; call loop 10
(module
    (memory (export "memory") 1)
    (func $swap (export "swap") (param i32 i64) (result i64 i32)
        (if (i32.eqz (local.get 0)) (then (return (i64.const -1) (i32.const -1))))
        (local.get 1) (local.get 0))
    (func (export "nested") (param i32) (result i32 i64 f64)
        (call $swap (local.get 0) (i64.const 3))
        (if (param i64 i32) (result i32 i64 f64) (local.get 0)
            (then (drop) (drop) (i32.const 1) (i64.const 2) (br 1 (f64.const 3)))
            (else (local.set 0) (drop) (local.get 0) (i64.const 4) (f64.const 5))))
    (func (export "loop") (param i32) (result i32)
        (i32.const 0) (i32.const 1)
        (loop $l (param i32 i32) (result i32)
            (i32.add)
            (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
            (local.get 0)
            (br_if $l (local.get 0))
            (drop))))
