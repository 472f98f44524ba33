;; call even 1001
;; call even 1000
;; call sum 100 0
(module
    (memory (export "memory") 1)
    (type $sum (func (param i32 i32) (result i32)))
    (table funcref (elem $sum))
    (func $even (export "even") (param i32) (result i32)
        (if (i32.eqz (local.get 0)) (then (return (i32.const 1))))
        (return_call $odd (i32.sub (local.get 0) (i32.const 1))))
    (func $odd (param i32) (result i32)
        (if (i32.eqz (local.get 0)) (then (return (i32.const 0))))
        (return_call $even (i32.sub (local.get 0) (i32.const 1))))
    (func $nothing)
    (func $sum (export "sum") (type $sum)
        (call $nothing)
        (if (i32.eqz (local.get 0)) (then (return (local.get 1))))
        (return_call_indirect (type $sum) (i32.sub (local.get 0) (i32.const 1))
            (i32.add (local.get 0) (local.get 1)) (i32.const 0))))
