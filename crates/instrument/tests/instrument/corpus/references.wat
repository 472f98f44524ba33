;; call both 1
;; call both 0
;; call pick 1
(module
    (memory (export "memory") 1)
    (elem declare func $f)
    (func $f)
    (func $two (param i32) (result funcref externref)
        (if (local.get 0) (then (return (ref.func $f) (ref.null extern))))
        (call $f)
        (ref.null func) (ref.null extern))
    (func (export "both") (param i32) (result funcref externref) (call $two (local.get 0)))
    (func (export "pick") (param i32) (result i32)
        (call $two (i32.const 0))
        (drop)
        (ref.is_null (select (result funcref) (ref.func $f) (local.get 0)))))
