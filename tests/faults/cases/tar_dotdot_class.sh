# An archive whose class archive is called "...tar" (stem "..") is written outside train/, and is counted as a class called "..".
. "$(dirname "$0")/../lib.sh"
$PY - $W <<'P'
import io,sys,tarfile
from PIL import Image
w=sys.argv[1]; b=io.BytesIO(); Image.new("RGB",(8,8)).save(b,"JPEG"); im=b.getvalue()
def tar(members):
    o=io.BytesIO(); t=tarfile.open(fileobj=o,mode="w")
    for n,d in members: i=tarfile.TarInfo(n); i.size=len(d); t.addfile(i,io.BytesIO(d))
    t.close(); return o.getvalue()
open(w+"/t.tar","wb").write(tar([("...tar",tar([("a.JPEG",im)])),("n01.tar",tar([("b.JPEG",im)]))]))
open(w+"/v.tar","wb").write(tar([("v.JPEG",im)])); open(w+"/l","w").write("v.JPEG n01\n")
P
timeout 600 $PY -m senet prepare imagenet $W/out --train $W/t.tar --val $W/v.tar --labels $W/l; rc=$?
ls $W/out; F=0; [ -f $W/out/a.JPEG ] && { echo "a.JPEG was written outside train/"; F=1; }; exit $F
