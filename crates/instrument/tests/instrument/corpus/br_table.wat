;; call pick 0
;; call pick 1
;; call pick 2
;; call pick 3
;; call pick -1
;; call value 0
;; call value 7
(module
    (memory (export "memory") 1)
    (func (export "pick") (param i32) (result i32)
        (block $d (block $c (block $b (block $a
            (br_table $a $b $c $d (local.get 0)))
            (return (i32.const 10)))
            (return (i32.const 20)))
            (return (i32.const 30)))
        (i32.const 40))
    (func (export "value") (param i32) (result i32)
        (block $outer (result i32)
            (block $inner (result i32)
                (br_table $inner $outer (i32.const 5) (local.get 0)))
            (i32.add (i32.const 100)))))
