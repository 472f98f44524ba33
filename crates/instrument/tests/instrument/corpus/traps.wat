;; call divide 7 2
;; call divide 7 0
;; call divide -2147483648 -1
;; call truncate 1.5
;; call truncate 1000000000000.0
;; call nested 1
;; call nested 0
;; call out 65533
;; call out 65532
(module
    (memory (export "memory") 1)
    (global (export "count") (mut i32) (i32.const 0))
    (func (export "divide") (param i32 i32) (result i32)
        (global.set 0 (i32.add (global.get 0) (i32.const 1)))
        (i32.div_s (local.get 0) (local.get 1)))
    (func (export "truncate") (param f64) (result i32) (i32.trunc_f64_s (local.get 0)))
    (func $fail (param i32) (result i32)
        (if (local.get 0) (then (unreachable)))
        (global.set 0 (i32.add (global.get 0) (i32.const 10)))
        (i32.const 1))
    (func (export "nested") (param i32) (result i32)
        (global.set 0 (i32.add (global.get 0) (i32.const 100)))
        (i32.add (call $fail (local.get 0)) (i32.const 1)))
    (func (export "out") (param i32) (i32.store (local.get 0) (i32.const -1))))
