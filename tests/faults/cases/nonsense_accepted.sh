# Values without a meaning that pass validation: counts them in-process (no training). Exits non-zero while any passes.
. "$(dirname "$0")/../lib.sh"
timeout 600 $PY - <<'P'
import sys; sys.path.insert(0,"."); sys.argv=["train.py"]
from hydra import compose, initialize_config_dir
import os, senet.training.entry as en
from senet.errors import UserError
en.register_models(); n=0
cases="""optimizer.weight_decay=nan|optimizer.weight_decay=inf|optimizer.lr=inf|optimizer.lr_batch=0|optimizer.lr_batch=-32|optimizer.momentum=-0.5|optimizer.momentum=1.5|optimizer.momentum=nan|optimizer.trunk_lr=-1|optimizer.trunk_lr=nan|schedule.final=-1|schedule.final=nan|schedule.warmup_epochs=nan|schedule.warmup_start=-5|schedule=step schedule.gamma=-1|schedule=step schedule.gamma=nan|schedule=plateau schedule.patience=-3|schedule=plateau schedule.threshold=nan|schedule=plateau schedule.drops=-1|optimizer=adamw optimizer.betas=[2,2]|optimizer=adamw optimizer.eps=-1|mixing.mixup=nan|mixing.mixup=inf|mixing.cutmix=nan|data.batch_size=0|data.eval_batch_size=0|data.eval_batch_size=-4|data.workers=-1|data.preprocessing.std=[nan]|data.preprocessing.std=[inf]|data.preprocessing.mean=[nan]|augment.pad=-1|augment.colour_jitter=-1|augment.rand_augment=[-1,5]|augment.ratio=[1,inf]|trainer.max_epochs=0|trainer.max_epochs=-1|trainer.accumulate_grad_batches=0|trainer.limit_train_batches=-1|trainer.gradient_clip_val=-1|trainer.check_val_every_n_epoch=0|trainer.check_val_every_n_epoch=-1|trainer.precision=foo|trainer.strategy=foo|trainer.num_nodes=0|checkpoint.every_n_steps=0|checkpoint.every_n_steps=-1|data=synthetic data.train_images=0|data=synthetic data.val_images=0|data=synthetic data.num_classes=-1|seed=true"""
with initialize_config_dir(os.path.abspath("configs"),version_base="1.3"):
    for t in cases.split("|"):
        try: v=en.plain(compose("train",overrides=t.split())); v.pop("resume",None); en.check_run(v)
        except UserError: continue
        n+=1; print("accepted:",t)
print(n,"of",cases.count("|")+1,"accepted"); sys.exit(n>0)
P
